"""The policy that ships: its card, and whether it does on a bundled set what the card says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import pretrained
from envs.models.frozen.trainer import FrozenConfig
from envs.simulation import ProtocolConfig, Simulation
from envs.source import evaluation_starts, evaluation_trainer
from envs.sources import open_dataset
from evaluation.comparison import FIRST_SEED
from evaluation.playing import play
from policies.policy_file import load_policy, pretrained_policy
from policies.strategies import get_strategy
from policies.strategies.learned import Learned


def test_the_card_says_where_the_policy_comes_from() -> None:
    selector, card = load_policy(pretrained_policy())
    assert selector.config.linear and not selector.config.mlp and torch.isfinite(selector.weights).all()
    assert [source["name"] for source in card.trained_on[:3]] == list(pretrained.BUNDLED)
    assert card.labels_used == sum(source["labels"] for source in card.trained_on)
    assert len({parent["seed"] for parent in card.parents}) == len(card.parents) >= 2
    assert card.episodes > 0 and card.training_seconds > 0 and card.versions["torch"]
    assert list(card.figures) == list(pretrained.BUNDLED)


def test_it_does_what_its_card_says() -> None:
    selector, card = load_policy(pretrained_policy())
    pool, protocol, model = open_dataset("emoji"), ProtocolConfig(), FrozenConfig()
    figures = card.figures["emoji"]
    starts = evaluation_starts(pool, protocol, range(FIRST_SEED, FIRST_SEED + figures["seeds"]))
    simulation = Simulation(evaluation_trainer(pool, model), protocol)
    areas = {
        name: play(simulation, starts, name, choose).accuracy[:, 1:].mean()
        for name, choose in {"learned": Learned(selector, card.candidates), "badge": get_strategy("badge")}.items()
    }
    # Other processors round otherwise, and one pick that differs changes all that follow it.
    assert areas["learned"] == pytest.approx(figures["aulc"], abs=0.01)
    assert areas["learned"] - areas["badge"] == pytest.approx(figures["minus_badge"], abs=0.015)
    assert figures["minus_badge"] > 0.015


@pytest.mark.slow
def test_the_command_that_makes_it_runs_from_scratch(tmp_path: Path) -> None:
    settings = ["evolution.generations=2", "evolution.starts=1", "evolution.population=4"]
    pretrained.make(tmp_path / "out", tmp_path / "policy", 2, settings, seeds=2)
    selector, card = load_policy(tmp_path / "policy")
    assert card.figures["digits"]["seeds"] == 2 and len(card.parents) == 2
    assert selector.weights.norm() > 0
