"""Training that is killed, interrupted, resumed, or finds its checkpoint broken."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from policies.policy_file import load_policy
from tests.support.training import DATASET, go_on_to, history, run_here, train_command, wait_for

pytestmark = pytest.mark.usefixtures("one_ray")


def start_long(out: Path) -> subprocess.Popen:
    return subprocess.Popen(
        train_command(out, "--set", "learner.iterations=100000"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_resume_after_kill(tmp_path):
    out = tmp_path / "run"
    process = start_long(out)
    wait_for(lambda: (out / "checkpoints" / "000004").is_dir(), process)
    os.killpg(process.pid, signal.SIGKILL)  # Ray's own processes notice and leave
    process.communicate()
    kept = max(int(p.name) for p in (out / "checkpoints").iterdir() if p.name.isdigit())
    before = load_policy(out)[1].episodes
    assert go_on_to(kept + 2, out) == 0
    assert [row["iteration"] for row in history(out)] == list(range(1, kept + 3))
    assert load_policy(out)[1].episodes == (kept + 2) * 8 >= before - 8


def test_interrupt_leaves_a_usable_policy(tmp_path):
    out = tmp_path / "run"
    process = start_long(out)
    wait_for(lambda: (out / "checkpoints" / "000002").is_dir(), process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    selector, card = load_policy(out)
    assert card.episodes >= 16 and torch.isfinite(selector.weights).all()
    assert (out / "learning_curve.png").stat().st_size > 1000


def test_pools_of_a_family_are_drawn_as_training_goes(tmp_path):
    """Two runners draw for themselves; what is drawn is counted, and a resumed run goes on counting."""
    family = "synthetic-family:samples=400,classes=3"
    out = tmp_path / "run"
    assert run_here([*train_command(out, "--dataset", f"{DATASET},{family}"), "--num-env-runners", "2"]) == 0
    rows = history(out)
    played = {name for row in rows for name in row if name.startswith("source_")}
    minus = {f"source_aulc_minus/{name}/synthetic" for name in ("badge", "margin")}
    assert played == {f"source_aulc/{family}", "source_aulc/synthetic"} | minus
    for row in rows:  # a family has no baselines, and its episodes do not blur those of the others
        assert ("aulc_minus/badge" in row) == ("source_aulc/synthetic" in row)
        if "aulc_minus/badge" in row:
            assert row["aulc_minus/badge"] == pytest.approx(row["source_aulc_minus/badge/synthetic"])
    first = load_policy(out)[1]
    drawn = next(source for source in first.trained_on if source["name"] == family)["labels"]
    assert drawn > 150 and first.labels_used == drawn + first.trained_on[0]["labels"]
    assert go_on_to(5, out) == 0
    more = load_policy(out)[1].trained_on[1]["labels"]
    assert more > drawn


def test_broken_checkpoint_is_named(tmp_path, capsys):
    out = tmp_path / "run"
    assert run_here([*train_command(out), "--set", "learner.iterations=1"]) == 0
    last = max((out / "checkpoints").iterdir())
    assert not list(last.rglob("*.pkl"))
    for file in last.iterdir():
        file.write_bytes(b"broken")
    capsys.readouterr()
    assert go_on_to(2, out) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ") and last.name in message
