"""PPO and APPO: the loss by hand, and whole runs of both."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.minibatch_utils import MiniBatchCyclicIterator

from envs.errors import ConfigError
from learners.algorithms.config import LearnerConfig, ProximalConfig
from learners.algorithms.ppo import PPO, PPOConfig, proximal_loss
from learners.settings import TrainConfig, build
from policies.ordered_draw import log_probability
from policies.policy_file import load_policy
from policies.start import initial_selector
from tests.support.training import DATASET, go_on_to, history, run_here, train_command

OTHER = "synthetic:samples=300,classes=4,modalities=1,dim=5,seed=2"


def test_loss_by_hand() -> None:
    # Ratios per pick over 2 picks: exp(.1) = 1.105, within the clip; exp(.5) = 1.649, outside.
    logp, behaviour = torch.tensor([-3.8, -2.0, -2.0]), torch.tensor([-4.0, -3.0, -3.0])
    loss, figures = proximal_loss(logp, behaviour, torch.tensor([1.0, 1.0, -1.0]), picks=2, clip=0.2)
    near, far = torch.tensor([0.1, 0.5]).exp().tolist()
    # A good batch earns no more than 1.2; a bad one that became likelier is punished in full.
    assert loss.item() == pytest.approx(-2 * (near + 1.2 - far) / 3, rel=1e-5)
    assert figures["clipped_share"].item() == pytest.approx(2 / 3)
    assert figures["divergence_per_pick"].item() == pytest.approx(-(0.1 + 0.5 + 0.5) / 3, rel=1e-4)
    assert figures["entropy_per_pick"].item() == pytest.approx((4 + 3 + 3) / 3 / 2, rel=1e-5)


def test_divergence_and_entropy_are_those_of_the_draws() -> None:
    valid = torch.ones(1, 5, dtype=torch.bool)
    old, new = torch.randn(2, 1, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    every = torch.tensor(list(itertools.permutations(range(5), 3)))  # all draws of 3 of 5
    behaviour, logp = (log_probability(u.expand(60, 1, 5), every, valid.expand(60, 5)) for u in (old, new))
    likely = behaviour.exp()
    assert likely.sum().item() == pytest.approx(1)
    divergence, entropy = (likely * (behaviour - logp)).sum() / 3, -(likely * behaviour).sum() / 3
    drawn = torch.multinomial(likely, 50_000, replacement=True, generator=torch.Generator().manual_seed(1))
    _, figures = proximal_loss(logp[drawn], behaviour[drawn], torch.ones(50_000), 3, 0.2)
    assert figures["divergence_per_pick"].item() == pytest.approx(divergence.item(), rel=0.03)
    assert figures["entropy_per_pick"].item() == pytest.approx(entropy.item(), rel=0.03)


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


@given(st.integers(1, 200), st.integers(1, 6), st.integers(1, 300), st.integers(0, 3))
@settings(deadline=None)
def test_every_row_is_seen_in_every_epoch(rows: int, epochs: int, minibatch_rows: int, learners: int) -> None:
    proximal = ProximalConfig(epochs=epochs, minibatch_rows=minibatch_rows)
    config = PPOConfig().learning(LearnerConfig(), proximal).learners(num_learners=learners)
    passes = PPO._passes(SimpleNamespace(config=config), rows * max(learners, 1))
    batch = MultiAgentBatch({"rows": SampleBatch({"row": np.arange(rows)})}, rows)  # what one learner has
    steps = [minibatch["rows"]["row"] for minibatch in MiniBatchCyclicIterator(batch, **passes)]
    assert len(steps) >= epochs  # small data are no reason for fewer steps
    assert max(map(len, steps)) <= minibatch_rows
    times = np.bincount(np.concatenate(steps), minlength=rows)
    assert times.min() >= epochs and times.max() <= epochs + 1


def test_settings_that_cannot_be() -> None:
    given_ = {"algorithm": "ppo", "resources": {"num_env_runners": 0}, "proximal": {"epochs": 2}}
    assert build(TrainConfig, given_).proximal.epochs == 2
    for given_, words in (
        ({"algorithm": "appo", "resources": {"num_env_runners": 0}}, "--num-env-runners to 1 or more"),
        ({"proximal": {"clip": 0}}, "proximal.clip is 0"),
        ({"proximal": {"epochs": 0}}, "proximal.epochs is 0"),
    ):
        with pytest.raises(ConfigError) as error:
            build(TrainConfig, given_)
        assert words in str(error.value)


@pytest.mark.usefixtures("one_ray")
def test_ppo_learns_from_two_sources_repeats_and_resumes(tmp_path: Path) -> None:
    ppo = ("--algorithm", "ppo", "--dataset", f"{DATASET},{OTHER}", "--set", "proximal.minibatch_rows=8")
    names = ("first", "second")
    assert all(run_here(train_command(tmp_path / name, *ppo)) == 0 for name in names)
    (selector, card), (again, _) = (load_policy(tmp_path / name) for name in names)
    assert torch.equal(selector.weights, again.weights)
    assert (selector.weights - initial_selector(selector.config).weights).abs().max() > 0.01
    assert card.algorithm == "ppo" and card.episodes == 24 and card.training_seconds > 0
    rows = history(tmp_path / "first")
    for row in rows:
        assert 0 <= row["learner/clipped_share"] <= 1 and row["learner/entropy_per_pick"] > 0
        assert row["learner/divergence_per_pick"] != 0  # several steps on the same rows
    # Sources take turns; what is said of one is what was measured in its turn.
    played = [[name for name in ("synthetic", "synthetic-2") if f"source_aulc/{name}" in row] for row in rows]
    assert played in (
        [["synthetic"], ["synthetic-2"], ["synthetic"]],
        [["synthetic-2"], ["synthetic"], ["synthetic-2"]],
    )
    for row, (name,) in zip(rows, played, strict=True):
        assert row[f"source_aulc/{name}"] == pytest.approx(row["aulc"])
        assert row[f"source_aulc_minus/badge/{name}"] == pytest.approx(row["aulc_minus/badge"])
    assert go_on_to(4, tmp_path / "first") == 0
    assert [row["iteration"] for row in history(tmp_path / "first")] == [1, 2, 3, 4]


@pytest.mark.usefixtures("one_ray")
def test_appo_learns_from_runners_that_never_wait(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run_here([*train_command(out, "--algorithm", "appo"), "--num-env-runners", "1"]) == 0
    selector, card = load_policy(out)
    assert card.algorithm == "appo" and card.episodes == 24
    assert (selector.weights - initial_selector(selector.config).weights).abs().max() > 0.01
    behind = [row["learner/updates_behind"] for row in history(out)]
    assert behind[0] == 0 and all(0 < updates <= 2 for updates in behind[1:])
    # One step an iteration: what the learner replays first is what was drawn, and later rows come from older weights.
    divergence = [row["learner/divergence_per_pick"] for row in history(out)]
    assert divergence[0] == pytest.approx(0, abs=1e-5) and min(map(abs, divergence[1:])) > 1e-4
    assert go_on_to(4, out) == 0
    assert [row["iteration"] for row in history(out)] == [1, 2, 3, 4]
