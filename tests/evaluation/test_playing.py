"""What is recorded of a strategy's episodes, and that only pairs are compared."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch

from envs.errors import RLMBAError, StrategyError
from envs.models.frozen.model import TaskModelConfig
from envs.models.frozen.preparation import prepare
from envs.pools.partition import evaluation_roles, partition
from envs.pools.pool import Pool
from envs.round import Round
from envs.simulation import ProtocolConfig, draw_start
from evaluation.playing import Runs, check_pairing, from_arrays, play, to_arrays
from policies.strategies import get_strategy
from policies.strategies.random import random

PROTOCOL = ProtocolConfig(initial_labels=8, batch_size=4, rounds=2)
MODEL = TaskModelConfig(hidden=8, steps=8)


@pytest.fixture(scope="module")
def runs(pool: Pool) -> dict[str, Runs]:
    """Two strategies played in this process."""
    parts = partition(pool)
    data = from_arrays(to_arrays(prepare(pool, parts.evaluation, parts.test, MODEL.projection_dim)))
    starts = [draw_start(evaluation_roles(pool, seed), seed, PROTOCOL) for seed in (7, 8, 9)]
    return {n: play(data, starts, n, get_strategy(n), PROTOCOL, MODEL) for n in ("random", "margin")}


@pytest.mark.parametrize(("field", "says"), [("starts", "initial labels"), ("models", "round-zero model")])
def test_unpaired_runs_are_refused(runs: dict[str, Runs], field: str, says: str) -> None:
    check_pairing(runs)
    changed = getattr(runs["margin"], field).copy()
    changed[1] = "0" * 16
    tampered = runs | {"margin": dataclasses.replace(runs["margin"], **{field: changed})}
    with pytest.raises(RLMBAError, match=f"Unpaired.*{says}.*seed 8"):
        check_pairing(tampered)


def test_other_seeds_are_refused(runs: dict[str, Runs]) -> None:
    shifted = dataclasses.replace(runs["margin"], seeds=runs["margin"].seeds + 1)
    with pytest.raises(RLMBAError, match="Unpaired"):
        check_pairing(runs | {"margin": shifted})
    fewer = Runs(*(getattr(runs["margin"], f.name)[:2] for f in dataclasses.fields(Runs)))
    with pytest.raises(RLMBAError, match=r"3 seeds .* 2"):
        check_pairing(runs | {"margin": fewer})


def test_another_start_has_another_hash(runs: dict[str, Runs]) -> None:
    r = runs["random"]
    assert len(set(r.starts)) == len(set(r.models)) == 3


@pytest.mark.parametrize(
    "picks", [torch.zeros(3, 4, dtype=torch.int64), torch.arange(9).reshape(3, 3), torch.full((3, 4), 9_999)]
)
def test_a_strategy_that_picks_badly_is_named(pool: Pool, picks: torch.Tensor) -> None:
    data = prepare(pool, partition(pool).evaluation, partition(pool).test)
    starts = [draw_start(evaluation_roles(pool, seed), seed, PROTOCOL) for seed in (1, 2, 3)]
    with pytest.raises(StrategyError, match="'bad'"):
        play(data, starts, "bad", lambda *_: picks, PROTOCOL, MODEL)


def test_where_the_seconds_go(pool: Pool) -> None:
    def slow(round_: Round, batch_size: int) -> torch.Tensor:
        _ = round_.outputs
        with round_.stopwatch.measure("picking"):
            time.sleep(0.02)
        time.sleep(0.05)
        return random(round_, batch_size)

    data = prepare(pool, partition(pool).evaluation, partition(pool).test)
    starts = [draw_start(evaluation_roles(pool, seed), seed, PROTOCOL) for seed in (1, 2)]
    runs = play(data, starts, "slow", slow, PROTOCOL, MODEL)
    assert np.isnan(runs.seconds_scoring[:, 0]).all()
    assert ((runs.seconds_picking[:, 1:] >= 0.01) & (runs.seconds_picking[:, 1:] < 0.02)).all()
    assert ((runs.seconds_scoring[:, 1:] >= 0.025) & (runs.seconds_scoring[:, 1:] < 0.035)).all()
    assert (runs.seconds_inference[:, 1:] > 0).all()
    assert (runs.seconds_train[:, 1:] > 0).all()


def test_balance_and_reference_are_recorded(runs: dict[str, Runs]) -> None:
    r = runs["random"]
    assert r.shapley.shape == r.modality_accuracy.shape
    assert not np.allclose(r.shapley[:, 0], r.shapley[:, 1])
    assert np.array_equal(r.shapley[:, 0], runs["margin"].shapley[:, 0])  # the same round-zero model
    assert np.array_equal(r.all_labels_accuracy, runs["margin"].all_labels_accuracy)
    assert r.all_labels_accuracy.mean() > r.accuracy[:, -1].mean()


def test_joined_runs_have_one_layout(runs: dict[str, Runs]) -> None:
    """Else sums over kept and over fresh runs may differ in their last digit."""
    other = dataclasses.replace(runs["random"], shapley=np.asfortranarray(runs["random"].shapley))
    assert Runs.join([other, other]).shapley.flags.c_contiguous
