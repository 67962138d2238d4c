"""PPO and APPO: the loss by hand, and whole runs of both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training import DATASET, run, train_command

from envs.errors import ConfigError
from learners.ppo import proximal_loss
from learners.settings import TrainConfig, build
from policies.selector import Selector, load_policy

OTHER = "synthetic:samples=300,classes=4,modalities=1,dim=5,seed=2"


def test_loss_by_hand() -> None:
    # Ratios per pick over 2 picks: exp(.1) = 1.105, within the clip; exp(.5) = 1.649, outside.
    logp, behaviour = torch.tensor([-3.8, -2.0, -2.0]), torch.tensor([-4.0, -3.0, -3.0])
    loss, figures = proximal_loss(logp, behaviour, torch.tensor([1.0, 1.0, -1.0]), picks=2, clip=0.2)
    near, far = torch.tensor([0.1, 0.5]).exp().tolist()
    # A good batch earns no more than 1.2; a bad one that became likelier is punished in full.
    assert loss.item() == pytest.approx(-2 * (near + 1.2 - far) / 3, rel=1e-5)
    assert figures["clipped_share"].item() == pytest.approx(2 / 3)
    expected = (near - 1.1 + 2 * (far - 1.5)) / 3
    assert figures["divergence_per_pick"].item() == pytest.approx(expected, rel=1e-4)


@given(st.integers(0, 2**31), st.integers(1, 1000))
@settings(deadline=None)
def test_the_first_step_is_that_of_reinforce_however_many_picks(seed: int, picks: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    weights = torch.randn(4, generator=rng, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(6, 4, generator=rng, dtype=torch.float64)
    advantages = torch.randn(6, generator=rng, dtype=torch.float64)
    logp = rows @ weights
    loss, _ = proximal_loss(logp, logp.detach(), advantages, picks, 0.2)
    (ours,) = torch.autograd.grad(loss, weights, retain_graph=True)
    (reinforce,) = torch.autograd.grad(-(logp * advantages).mean(), weights)
    torch.testing.assert_close(ours, reinforce)


@given(st.integers(1, 1000))
@settings(deadline=None)
def test_what_is_clipped_depends_on_the_change_per_pick(picks: int) -> None:
    change = torch.tensor([0.1, 0.3], dtype=torch.float64)
    _, figures = proximal_loss(-5.0 + picks * change, torch.full((2,), -5.0), torch.ones(2), picks, 0.2)
    assert figures["clipped_share"].item() == 0.5


def test_settings_that_cannot_be() -> None:
    assert build(TrainConfig, {"algorithm": "ppo", "resources": {"num_env_runners": 0}}).algorithm == "ppo"
    for given_, words in (
        ({"algorithm": "appo", "resources": {"num_env_runners": 0}}, "--num-env-runners to 1 or more"),
        ({"proximal": {"clip": 0}}, "proximal.clip is 0"),
        ({"proximal": {"epochs": 0}}, "proximal.epochs is 0"),
        ({"algorithm": "appo", "datasets": ["synthetic-family"]}, "for appo name single pools"),
    ):
        with pytest.raises(ConfigError) as error:
            build(TrainConfig, given_)
        assert words in str(error.value)


def history(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def test_ppo_learns_from_two_sources_repeats_and_resumes(tmp_path: Path) -> None:
    ppo = ("--algorithm", "ppo", "--dataset", f"{DATASET},{OTHER}", "--set", "proximal.minibatch_rows=8")
    weights = []
    for name in ("first", "second"):
        done = run(train_command(tmp_path / name, *ppo))
        assert done.returncode == 0, done.stderr
        selector, card = load_policy(tmp_path / name)
        weights.append(selector.weights)
    assert torch.equal(*weights)
    assert (weights[0] - Selector(selector.config).weights).abs().max() > 0.01
    assert card.algorithm == "ppo" and card.episodes == 24 and card.training_seconds > 0
    rows = history(tmp_path / "first")
    assert all(0 <= row["learner/clipped_share"] <= 1 and row["learner/divergence_per_pick"] >= 0 for row in rows)
    # Sources take turns; what is said of one is what was measured in its turn.
    played = [[name for name in ("synthetic", "synthetic-2") if f"source_aulc/{name}" in row] for row in rows]
    assert played in (
        [["synthetic"], ["synthetic-2"], ["synthetic"]],
        [["synthetic-2"], ["synthetic"], ["synthetic-2"]],
    )
    for row, (name,) in zip(rows, played, strict=True):
        assert row[f"source_aulc/{name}"] == pytest.approx(row["aulc"])
        assert row[f"source_aulc_minus/badge/{name}"] == pytest.approx(row["aulc_minus/badge"])
    config = tmp_path / "first" / "config.yaml"
    config.write_text(config.read_text().replace("iterations: 3", "iterations: 4"))
    done = run(train_command(tmp_path / "first", "--resume"))
    assert done.returncode == 0, done.stderr
    assert [row["iteration"] for row in history(tmp_path / "first")] == [1, 2, 3, 4]


def test_appo_learns_from_runners_that_never_wait(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run([*train_command(out, "--algorithm", "appo"), "--num-env-runners", "1"])
    assert done.returncode == 0, done.stderr
    selector, card = load_policy(out)
    assert card.algorithm == "appo" and card.episodes == 24
    assert (selector.weights - Selector(selector.config).weights).abs().max() > 0.01
    assert len(history(out)) == 3
