"""What is recorded of a strategy's episodes, and that only pairs are compared."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from envs.errors import StrategyError
from envs.models.base import TaskModel
from envs.models.frozen.trainer import FrozenConfig
from envs.pools import Pool
from envs.round import Round
from envs.simulation import ProtocolConfig, Simulation
from envs.source import evaluation_starts, evaluation_trainer
from evaluation.playing import play
from evaluation.runs import Runs
from policies.strategies import get_strategy
from policies.strategies.random import random

PROTOCOL = ProtocolConfig(initial_labels=8, batch_size=4, rounds=2)
MODEL = FrozenConfig(hidden=8, steps=8)


@pytest.fixture(scope="module")
def runs(pool: Pool) -> dict[str, Runs]:
    """Two strategies played in this process."""
    trainer = pickle.loads(pickle.dumps(evaluation_trainer(pool, MODEL)))  # as workers get it
    starts = evaluation_starts(pool, PROTOCOL, (7, 8, 9))
    return {n: play(Simulation(trainer, PROTOCOL), starts, n, get_strategy(n)) for n in ("random", "margin")}


def test_another_start_has_another_hash(runs: dict[str, Runs]) -> None:
    r = runs["random"]
    assert len(set(r.starts)) == len(set(r.models)) == 3


@pytest.mark.parametrize(
    "picks", [torch.zeros(3, 4, dtype=torch.int64), torch.arange(9).reshape(3, 3), torch.full((3, 4), 9_999)]
)
def test_a_strategy_that_picks_badly_is_named(pool: Pool, picks: torch.Tensor) -> None:
    simulation = Simulation(evaluation_trainer(pool, MODEL), PROTOCOL)
    with pytest.raises(StrategyError, match="'bad'"):
        play(simulation, evaluation_starts(pool, PROTOCOL, (1, 2, 3)), "bad", lambda *_: picks)


def test_where_the_seconds_go(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def slow(round_: Round, batch_size: int) -> torch.Tensor:
        for kind, seconds in (("inference", 1.0), ("picking", 2.0)):
            with round_.stopwatch.measure(kind):
                now[0] += seconds
        now[0] += 4.0
        return random(round_, batch_size)

    simulation = Simulation(evaluation_trainer(pool, MODEL), PROTOCOL)
    fit = simulation.trainer.fit

    def fit_in_eight_seconds(labelled: torch.Tensor) -> TaskModel:
        now[0] += 8.0
        return fit(labelled)

    monkeypatch.setattr(simulation.trainer, "fit", fit_in_eight_seconds)
    runs = play(simulation, evaluation_starts(pool, PROTOCOL, (1, 2)), "slow", slow)
    expected = {"inference": 1.0, "picking": 2.0, "scoring": 4.0, "train": 8.0}
    for kind, seconds in expected.items():
        of_kind = getattr(runs, f"seconds_{kind}")
        assert np.isnan(of_kind[:, 0]).all()
        assert (of_kind[:, 1:] == seconds / 2).all()  # of two episodes


def test_balance_and_reference_are_recorded(runs: dict[str, Runs]) -> None:
    r = runs["random"]
    assert r.shapley.shape == r.modality_accuracy.shape
    assert not np.allclose(r.shapley[:, 0], r.shapley[:, 1])
    assert np.array_equal(r.shapley[:, 0], runs["margin"].shapley[:, 0])  # the same round-zero model
    assert np.array_equal(r.all_labels_accuracy, runs["margin"].all_labels_accuracy)
    assert r.all_labels_accuracy.mean() > r.accuracy[:, -1].mean()
