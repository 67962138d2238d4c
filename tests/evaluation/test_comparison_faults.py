"""A comparison in which something fails: a worker is killed, a strategy refuses or tires, somebody interrupts."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from envs.errors import StrategyError
from envs.round import Round
from evaluation.comparison import compare
from policies.strategies import STRATEGIES as REGISTERED
from policies.strategies.random import random
from run import main
from tests.support.comparison import (
    DATASET,
    MODEL,
    PROTOCOL,
    config,
    count_already_there,
    files,
    quiet,
    rounds,
    without_times,
)
from tests.support.paths import ROOT


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable], None]:
    return lambda name, strategy: monkeypatch.setitem(REGISTERED, name, strategy)


@pytest.mark.usefixtures("tables_only")
def test_a_killed_worker_is_replaced(one_ray: None, register: Callable, tmp_path: Path) -> None:
    mark = tmp_path / "died"

    def dies_once(round_: Round, batch_size: int) -> torch.Tensor:
        if round_.episodes > 1 and round_.index == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return random(round_, batch_size)

    register("dies_once", dies_once)
    (summary,) = compare(config(strategies=("random", "dies_once")), tmp_path / "out", quiet).datasets.values()
    assert mark.exists()
    assert summary.strategies["dies_once"].aulc == summary.strategies["random"].aulc


def test_a_refusal_comes_first_and_names_every_data_set(one_ray: None, register: Callable, tmp_path: Path) -> None:
    def picky(round_: Round, batch_size: int) -> torch.Tensor:
        if round_.num_classes == 4:
            raise StrategyError("picky cannot tell four classes apart.")
        return random(round_, batch_size)

    register("picky", picky)
    more = DATASET.replace("classes=4", "classes=5")
    with pytest.raises(StrategyError, match=r"On 'synthetic:.*classes=4.*picky cannot.*\nLeave these out") as caught:
        compare(config(datasets=(more, DATASET), strategies=("random", "picky")), tmp_path, quiet)
    assert "classes=5" not in str(caught.value)
    assert files(tmp_path) == set()


@pytest.mark.usefixtures("tables_only")
def test_a_late_failure_keeps_what_is_finished(one_ray: None, register: Callable, tmp_path: Path) -> None:
    def tires(round_: Round, batch_size: int) -> torch.Tensor:
        return random(round_, batch_size if round_.index == 0 else batch_size - 1)

    register("tires", tires)
    lines: list[str] = []
    with pytest.raises(StrategyError, match=r"On 'synthetic:.*'tires' returned picks of shape \[3, 3\]"):
        compare(config(strategies=("random", "tires"), workers=1), tmp_path, quiet)
    assert len(files(tmp_path)) == 1
    compare(config(strategies=("random", "margin")), tmp_path, lines.append)
    assert count_already_there(lines) == ["2/2 chunks (1 already there)"]


def test_an_interruption_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluation.comparison.compare", interrupted)
    assert main(["compare", "--dataset", DATASET, "--policy", "none", "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err


KILLED = """
import os, signal, sys
import run
from evaluation.results import Results

put, kept = Results.put, []

def put_and_die(*arguments):
    put(*arguments)
    kept.append(1)
    if len(kept) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Results.put = put_and_die
sys.exit(run.main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("tables_only")
def test_a_killed_comparison_goes_on_where_it_stopped(one_ray: None, tmp_path: Path, capsys) -> None:
    settings = {"seeds": 40, "workers": 1, "strategies": ("random", "margin", "entropy")}
    arguments = ["compare", "--dataset", DATASET, "--out", str(tmp_path / "out"), "--policy", "none"]
    arguments += ["--strategies", ",".join(settings["strategies"]), "--seeds", "40", "--workers", "1"]
    for section, values in (("protocol", dataclasses.asdict(PROTOCOL)), ("model", dataclasses.asdict(MODEL))):
        for name, value in values.items():
            arguments += ["--set", f"{section}.{name}={value}"]
    command = [sys.executable, "-c", KILLED, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    results = tmp_path / "out" / "results"
    there = {name: (results / name).stat().st_mtime_ns for name in files(tmp_path / "out")}
    assert len(there) == 2
    assert not (tmp_path / "out" / "summary.json").exists()
    left = [tmp_path / "out" / place / ".unfinished-0123.npz" for place in ("", "results", "pictures")]
    for file in left:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert main(arguments) == 0
    assert not any(file.exists() for file in left)
    assert "12/12 chunks (2 already there)" in capsys.readouterr().out
    assert all((results / name).stat().st_mtime_ns == before for name, before in there.items())
    uninterrupted = compare(config(**settings | {"workers": 2}), tmp_path / "whole", quiet)
    resumed = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert without_times(resumed) | {"workers": 2} == without_times(uninterrupted.to_json())
    assert rounds(tmp_path / "out").equals(rounds(tmp_path / "whole"))
