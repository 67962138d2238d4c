"""Sweeps: the files of tune_configs/, the Pareto front, and a search that is killed and goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import run
from envs.errors import ConfigError
from learners.settings import TrainConfig, build, read_yaml
from learners.sweeps.config import SweepConfig
from learners.sweeps.pareto import choose, draw, front_shares, pareto_front, regions, table
from tests.support.paths import ROOT
from tests.support.sweeps import TINY


@given(arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(0, 4)))
def test_the_front_is_what_no_other_trial_beats(values) -> None:
    for i, row in enumerate(values):
        beaten = any((other >= row).all() and (other > row).any() for other in values)
        assert pareto_front(values)[i] == (not beaten)
    assert pareto_front(values)[choose(values.astype(float))]


def test_the_choice_is_a_compromise() -> None:
    assert choose(np.array([[1.0, 0.0], [0.9, 0.9], [0.0, 1.0], [0.5, 0.5]])) == 1


@pytest.mark.parametrize("name", ["balance", "balance_synthetic", "learning", "population"])
def test_the_files_of_tune_configs(name: str) -> None:
    config = build(SweepConfig, read_yaml(ROOT / "tune_configs" / f"{name}.yaml"))
    assert config.first().until(3).iterations == 3


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"serch": "asha"}, "Unknown setting 'serch'. Did you mean 'search'"),
        ({"search": "optun"}, "Did you mean 'optuna'"),
        ({"objectives": {"aulcc": "max"}}, "Did you mean 'aulc'"),
        ({"objectives": {"aulc": "maximum"}}, "it must be 'max' or 'min'"),
        ({"search": "asha", "objectives": {"aulc": "max"}}, "give 2 or more"),
        ({"search": "asha", "slices": 2}, "follows one objective"),
        ({"space": {}}, "space is empty"),
        ({"space": {"reward.hard_thrd": {"uniform": [0, 1]}}}, "Unknown setting 'reward.hard_thrd'"),
        ({"space": {"reward.hard_third": {"unifrm": [0, 1]}}}, "Did you mean 'uniform'"),
        ({"space": {"reward.hard_third": {"uniform": [1, 0]}}}, r"write \[least, most\]"),
        ({"space": {"learner.learning_rate": {"loguniform": [0, 1]}}}, "must be above 0"),
        ({"slices": 9}, "only 2 iterations"),
        ({"trials": 0}, "trials is 0"),
    ],
)
def test_mistakes_are_named(changes, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(SweepConfig, TINY | changes)


def test_a_sweep_refuses_what_it_cannot_do(tmp_path: Path, capsys) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(TINY | {"train": TINY["train"] | {"datasets": ["synthetic-family"]}}))
    assert run.main(["tune", "--config", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "is no single pool" in capsys.readouterr().err
    assert run.main(["tune", "--out", str(tmp_path / "out")]) == 2
    assert "Give --config" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    file.write_text(yaml.safe_dump(TINY))
    assert run.main(["tune", "--config", str(file), "--out", str(tmp_path / "full")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_how_often_a_trial_is_on_the_front() -> None:
    starts = np.random.default_rng(0).normal(size=(2, 12))  # difficult and easy starts are so for all trials
    best, worse = starts + 0.1, starts
    trade_off = starts + np.array([[0.2], [-0.2]])
    noisy = starts + 0.1 + np.random.default_rng(1).normal(0, 0.3, (2, 12))
    shares = front_shares(np.stack([best, worse, trade_off, noisy]))
    assert shares[1] == 0 and 0 < shares[3] < 1
    assert front_shares(np.stack([best, worse, trade_off])).tolist() == [1, 0, 1]


def test_confidence_regions_cover_the_means_as_often_as_they_say() -> None:
    rng, covered = np.random.default_rng(0), []
    means = np.array([[0.0, 0.0], [1.0, -1.0], [2.0, 0.5]])
    for _ in range(300):
        own = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 2]], (3, 8)).transpose(0, 2, 1)
        values = means[:, :, None] + own + 20 * rng.normal(size=(2, 8))  # the last: what the starts have in common
        outlines = regions(values)
        assert outlines is not None
        # Relative to the trials' centre, which the starts in common move.
        centre, found = means.mean(0), values.mean((0, 2))
        covered += [_inside(o - found, m - centre) for o, m in zip(outlines, means, strict=True)]
    assert 0.91 < np.mean(covered) < 0.98
    assert regions(values[:, :, :2]) is None and regions(values[:1]) is None


def _inside(outline: np.ndarray, point: np.ndarray) -> bool:
    sides = np.diff(outline, axis=0)
    to = point - outline[:-1]
    return bool(
        (sides[:, 0] * to[:, 1] - sides[:, 1] * to[:, 0] >= 0).all()
        or (sides[:, 0] * to[:, 1] - sides[:, 1] * to[:, 0] <= 0).all()
    )


def test_table_and_picture(tmp_path: Path) -> None:
    trials = [
        {
            "trial": name,
            "settings": {"a": v},
            "objectives": {"x": v, "y": 1 - v},
            "by_start": {"x": [v - 0.1, v, v + 0.1], "y": [1 - v, 1.1 - v, 0.9 - v]},
            "front": v > 0.3,
            "front_share": v,
            "chosen": v == 0.5,
        }
        for name, v in (("p", 0.2), ("q", 0.5), ("r", 0.9))
    ]
    rows = table(trials, ["a"], ["x", "y"]).splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["r", "q", "p"]
    assert "chosen" in rows[3] and "50.00" in rows[3] and "50 %" in rows[3]
    draw(trials, ["x", "y"], tmp_path / "two.png", "title")
    draw(trials, ["x"], tmp_path / "one.png", "title")
    assert (tmp_path / "two.png").stat().st_size > 5000 < (tmp_path / "one.png").stat().st_size


def _sweep(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "run.py", "tune", *arguments]
    # Ray Tune notes what has ended every ten seconds at first; trials are shorter here.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    """Kill -9 of the driver after the first trials: the finished ones stay, the number of trials is kept."""
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(TINY))
    driver = _sweep("--config", str(file), "--out", str(out))
    ended: list[str] = []
    for line in driver.stdout:
        ended += re.findall(r"trial (\w+)  \d of 4 ended", line)
        if len(ended) == 2:
            break
    time.sleep(3)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    histories = [out / "trials" / trial / "history.jsonl" for trial in ended]
    before = [history.read_text() for history in histories]  # holds seconds: nobody trains twice in the same time
    began = time.monotonic()
    again = _sweep("--out", str(out), "--resume")
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0, said
    summary = json.loads((out / "pareto.json").read_text())
    assert len(summary["trials"]) == 4 and sum(t["chosen"] for t in summary["trials"]) == 1
    assert len(ended) == 2 and set(ended) <= {trial["trial"] for trial in summary["trials"]}
    assert [history.read_text() for history in histories] == before
    print(f"\n| kill -9 of a sweep after 2 of 4 trials, then --resume | {time.monotonic() - began:.0f} s to its end |")
    build(TrainConfig, read_yaml(out / "chosen.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("search", ["asha", "population"])
def test_searches_that_decide_between_slices(search: str, tmp_path: Path) -> None:
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    changed = {"search": search, "slices": 2, "objectives": {"aulc": "max"}, "concurrent": 4}
    file.write_text(yaml.safe_dump(TINY | changed))
    done = _sweep("--config", str(file), "--out", str(out))
    said = done.communicate(timeout=400)[0]
    assert done.returncode == 0, said
    slices = [trial["slices"] for trial in json.loads((out / "pareto.json").read_text())["trials"]]
    assert len(slices) == 4 and max(slices) == 2
    if search == "asha":
        assert min(slices) == 1
