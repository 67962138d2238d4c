"""Pools made of the rows of smaller ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.pools import Pool
from envs.pools.oversampling import HOLDOUT_ROWS, VALIDATION_ROWS, oversample
from envs.pools.partition import Roles, training_roles
from envs.sources.synthetic import SyntheticSpec, make_synthetic

SMALL = make_synthetic(SyntheticSpec(samples=400, classes=5, modalities=2, dim=12, missing=0.2, seed=4))


def drawn(seed: int, budget: int = 200, pool: Pool = SMALL) -> tuple[Pool, Roles]:
    return oversample(pool, training_roles(pool, 0), budget, np.random.default_rng(seed))


@given(st.integers(0, 100_000), st.integers(20, 2000))
@settings(deadline=None, max_examples=30)
def test_there_are_more_rows_than_a_budget_and_each_has_one_role(seed: int, budget: int) -> None:
    pool, roles = drawn(seed, budget)
    assert 1.2 * budget <= len(roles.pool) or len(roles.pool) == 300
    assert (len(roles.validation), len(roles.holdout)) == (VALIDATION_ROWS, HOLDOUT_ROWS)
    rows = np.concatenate([roles.pool, roles.validation, roles.holdout])
    assert np.array_equal(np.sort(rows), np.arange(pool.num_samples))
    assert set(np.unique(pool.labels)) == set(range(pool.num_classes))
    assert set(pool.class_names) <= set(SMALL.class_names)
    assert pool.present.any(1).all()


def test_a_seed_decides_all() -> None:
    assert drawn(3)[0].fingerprint == drawn(3)[0].fingerprint != drawn(4)[0].fingerprint


def marked() -> Pool:
    """SMALL, whose first feature says which role a row has: nothing lies between 0, 100 and 200."""
    roles = training_roles(SMALL, 0)
    features = {name: x.copy() for name, x in SMALL.features.items()}
    for x in features.values():
        for number, rows in enumerate((roles.pool, roles.validation, roles.holdout)):
            x[rows] = 100 * number + 0.01 * x[rows]
    return dataclasses.replace(SMALL, features=features)


@pytest.mark.parametrize("seed", range(6))
def test_rows_come_from_rows_of_their_own_role(seed: int) -> None:
    pool, roles = drawn(seed, pool=marked())
    for number, rows in enumerate((roles.pool, roles.validation, roles.holdout)):
        for m, x in enumerate(pool.features.values()):
            assert np.abs(x[rows][pool.present[rows, m]] - 100 * number).max() < 50


def test_samples_lie_where_their_class_does() -> None:
    """The nearest class mean of the small pool says a sample's class about as often as for its own rows."""
    easy = make_synthetic(SyntheticSpec(samples=600, classes=4, modalities=1, dim=12, strength=4.0, seed=1))
    (name,) = easy.features
    x, labels = easy.features[name], easy.labels
    means = {easy.class_names[c]: x[labels == c].mean(0) for c in range(easy.num_classes)}

    def right(values: np.ndarray, names: list[str]) -> float:
        order = list(means)
        distances = np.stack([((values - means[n]) ** 2).sum(1) for n in order], 1)
        return float(np.mean([order[i] == n for i, n in zip(distances.argmin(1), names, strict=True)]))

    own = right(x, [easy.class_names[c] for c in labels])
    whole = [drawn(seed, pool=easy)[0] for seed in range(12)]
    complete = [p for p in whole if p.features[name].shape[1] == 12]
    found = [right(p.features[name], [p.class_names[c] for c in p.labels]) for p in complete]
    assert len(found) >= 3
    assert max(found) > own - 0.05  # where no label was flipped
    assert min(found) > own - 0.3  # a fifth at most was


def test_a_pool_where_some_class_has_a_row_or_two() -> None:
    labels = SMALL.labels.copy()
    rare = np.flatnonzero(labels == 0)
    labels[rare[8:]] = 1
    pool, _ = drawn(0, pool=dataclasses.replace(SMALL, labels=labels))
    assert all(np.isfinite(x).all() for x in pool.features.values())
