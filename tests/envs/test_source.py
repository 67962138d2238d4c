"""From names to simulations: what is drawn, what is refused, which rows answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import envs.source
from envs.errors import ConfigError
from envs.models.frozen.trainer import FrozenConfig
from envs.pools import Pool
from envs.pools.partition import partition
from envs.randomness import start_seed
from envs.simulation import ProtocolConfig
from envs.source import (
    Source,
    check_policy_half,
    draw_start,
    evaluation_starts,
    evaluation_trainer,
    open_pool,
    open_source,
    torch_device,
    training_starts,
    training_trainer,
)
from envs.sources import open_dataset

PROTOCOL = ProtocolConfig(initial_labels=8, batch_size=4, rounds=3)
MODEL = FrozenConfig(hidden=6, steps=3)
NAME = "synthetic:samples=200,classes=3,modalities=2,dim=4,seed=1"
FAMILY = "synthetic-family:samples=200,classes=3,modalities=2,dim=4"


def refuse(count: int, seen: list[Pool]):
    """A check that lets none of the first `count` pools pass."""

    def check(pool: Pool) -> None:
        seen.append(pool)
        if len(seen) <= count:
            raise ConfigError(f"pool {len(seen)} does not fit")

    return check


def test_pools_of_a_family_are_drawn_until_one_fits() -> None:
    seen: list[Pool] = []
    name, pool = open_pool(FAMILY, np.random.default_rng(0), refuse(3, seen))
    assert len({one.fingerprint for one in seen}) == 4 and pool is seen[-1]
    assert name.startswith("synthetic:") and open_dataset(name).fingerprint == pool.fingerprint
    first, _ = open_pool(FAMILY, np.random.default_rng(0), refuse(0, []))
    assert open_dataset(first).fingerprint == seen[0].fingerprint


def test_drawing_ends_where_none_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envs.source, "_DRAWS", 5)
    seen: list[Pool] = []
    with pytest.raises(ConfigError, match="pool 5 does not fit"):
        open_pool(FAMILY, np.random.default_rng(0), refuse(9, seen))
    assert len(seen) == 5


def test_a_data_set_gets_one_try() -> None:
    seen: list[Pool] = []
    with pytest.raises(ConfigError, match="pool 1 does not fit"):
        open_pool(NAME, np.random.default_rng(0), refuse(1, seen))
    assert len(seen) == 1
    name, pool = open_pool(NAME, np.random.default_rng(0), refuse(0, []))
    assert name == NAME and pool.fingerprint == seen[0].fingerprint


def test_a_budget_above_the_policy_half_is_refused() -> None:
    pool = open_source(NAME, PROTOCOL, np.random.default_rng(0))
    roles = training_starts(pool, PROTOCOL, [0])[0].roles
    fits = ProtocolConfig(initial_labels=len(roles.pool) - 8, batch_size=4, rounds=2)
    check_policy_half(pool, fits)
    with pytest.raises(ConfigError, match=f"budget of .* above the {len(roles.pool)} pool rows of .*trains policies"):
        open_source(NAME, ProtocolConfig(initial_labels=len(roles.pool) - 7, batch_size=4, rounds=2), None)


def test_starts_depend_on_pool_seed_and_protocol_alone(pool: Pool) -> None:
    starts = training_starts(pool, PROTOCOL, (3, 4))
    assert [s.digest for s in starts] == [training_starts(pool, PROTOCOL, [seed])[0].digest for seed in (3, 4)]
    assert len({s.digest for s in starts}) == 2
    for start in (*starts, *evaluation_starts(pool, PROTOCOL, (3, 4))):
        assert len(np.unique(start.initial)) == 8 and (np.diff(start.initial) > 0).all()
        assert start.initial.max() < len(start.roles.pool)
        assert draw_start(start.roles, start.seed, PROTOCOL).digest == start.digest


def test_initial_labels_are_drawn_blindly(pool: Pool) -> None:
    roles = training_starts(pool, PROTOCOL, [3])[0].roles
    drawn = draw_start(roles, 3, PROTOCOL).initial
    expected = np.random.default_rng([3, 0x51A7]).choice(len(roles.pool), 8, replace=False)
    assert (drawn == np.sort(expected)).all()


def test_either_trainer_is_for_its_own_half(pool: Pool) -> None:
    parts = partition(pool)
    training, evaluation = training_trainer(pool, MODEL), evaluation_trainer(pool, MODEL)
    assert (training.data.rows == parts.policy).all()
    assert (evaluation.data.rows == np.union1d(parts.evaluation, parts.test)).all()
    changed = {m: x.copy() for m, x in pool.features.items()}
    for x in changed.values():
        x[parts.test] = 9.0
    other = evaluation_trainer(Pool(**{**vars(pool), "features": changed}), MODEL)
    fitted = np.isin(evaluation.data.rows, parts.evaluation)
    assert torch.equal(evaluation.data.x[..., fitted], other.data.x[..., fitted])
    assert not torch.equal(evaluation.data.x[..., ~fitted], other.data.x[..., ~fitted])


@pytest.mark.parametrize("gpus", [False, True])
def test_auto_is_the_gpu_where_there_is_one(gpus: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    assert torch_device("auto") == ("cuda" if gpus else "cpu")
    assert torch_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="'cuda:77', which torch cannot use here"):
        torch_device("cuda:77")


def test_a_source_of_one_data_set_stays_as_it_is_drawn_again() -> None:
    source = Source(NAME, MODEL, PROTOCOL, seed=5)
    first = source.start(2)
    assert first is source.start(2) and first.seed == start_seed(5, 2)
    assert source.number == 0 and not source.family and source.labels == len(partition(source.pool).policy)
    before = source.pool.fingerprint
    source.draw(7)
    assert source.pool.fingerprint == before and source.number == 0 and source.start(2).digest == first.digest


def test_a_source_of_a_family_is_another_pool_for_each_number() -> None:
    source = Source(FAMILY, MODEL, PROTOCOL, seed=5)
    assert source.family and source.number == 5
    first, start, simulation = source.pool.fingerprint, source.start(0).digest, source.simulation
    source.draw(6)
    assert source.number == 6 and source.pool.fingerprint != first and source.start(0).digest != start
    assert source.simulation is not simulation and source.labels == len(partition(source.pool).policy)
    source.draw(5)
    assert source.pool.fingerprint == first and source.start(0).digest == start


def test_the_simulation_of_a_source_plays_its_starts() -> None:
    source = Source(NAME, MODEL, PROTOCOL, device="cpu")
    source.simulation.reset([source.start(0), source.start(1)], copies=2)
    assert source.simulation.episodes == 4
    steps = list(source.simulation.play(lambda r, b: r.available.float().topk(b, dim=1).indices))
    assert len(steps) == 3 and source.simulation.round.labelled.shape == (4, PROTOCOL.budget)
