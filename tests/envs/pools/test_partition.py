"""Roles: disjoint, of constant size, whole groups, every class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from envs.errors import ConfigError, DataError
from envs.pools import Pool
from envs.pools.partition import Partition, Roles, _apportion, evaluation_roles, partition, training_roles


def make(
    labels: np.ndarray | list[int],
    split: np.ndarray | None = None,
    group: np.ndarray | None = None,
) -> Pool:
    labels = np.asarray(labels)
    n = len(labels)
    return Pool(
        name="roles",
        features={"a": np.zeros((n, 1), np.uint8)},
        present=np.ones((n, 1), dtype=bool),
        labels=labels,
        class_names=tuple(f"c{i}" for i in range(max(labels) + 1)),
        ids=np.arange(n).astype(str),
        split=split,
        group=group,
    )


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Labels with some unknown; maybe a split; maybe groups, pure or mixed, of uneven sizes."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    classes = draw(st.integers(2, 5))
    n = draw(st.integers(80, 240))
    labels = np.sort(rng.choice(classes, n, p=rng.dirichlet(np.full(classes, 3.0))))
    group = None
    kind = draw(st.sampled_from(["rows", "pure", "mixed"]))
    if kind != "rows":
        size = rng.integers(1, 1 + draw(st.integers(1, 6)), n)
        number = np.repeat(np.arange(n), size)[:n]
        if kind == "mixed":
            labels = rng.permutation(labels)
            group = np.array([f"g{g}" for g in number])
        else:
            group = np.array([f"g{g}-{c}" for g, c in zip(number, labels, strict=True)])
    labels[rng.random(n) < draw(st.sampled_from([0.0, 0.2]))] = -1
    count = np.bincount(labels[labels >= 0], minlength=classes)
    labels[np.isin(labels, np.flatnonzero(count == 1))] = -1
    split = None
    values = draw(st.sampled_from([None, [0, 2], [0, 1], [0, 0, 1, 2]]))
    if values is not None:
        key = np.arange(n) if group is None else np.unique(group, return_inverse=True)[1]
        split = rng.choice(values, key.max() + 1)[key]
    return make(labels, split, group)


def arrays(roles: Roles | Partition) -> list[np.ndarray]:
    return list(vars(roles).values())


def assert_valid(pool: Pool, parts: list[np.ndarray]) -> None:
    joined = np.concatenate(parts)
    assert len(np.unique(joined)) == len(joined), "roles overlap"
    assert (pool.labels[joined] >= 0).all(), "unknown labels serve in a role"
    for part in parts:
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()
    if pool.group is not None:
        sets = [set(pool.group[part]) for part in parts]
        assert sum(map(len, sets)) == len(set.union(*sets)), "a group serves in two roles"


@settings(max_examples=80, deadline=None)
@given(pool=pools(), seed=st.integers(0, 2**63))
def test_roles_hold_what_they_promise(pool: Pool, seed: int) -> None:
    try:
        parts = partition(pool)
        drawn = [(training_roles(pool, s), evaluation_roles(pool, s)) for s in (0, 1, seed)]
    except DataError:  # too few samples of a rare class, or too few groups
        reject()
    assert_valid(pool, arrays(parts))
    assert sum(map(len, arrays(parts))) == (pool.labels >= 0).sum(), "partition loses rows"
    for training, evaluation in drawn:
        assert_valid(pool, arrays(training))
        assert_valid(pool, arrays(evaluation))
        assert set(np.concatenate(arrays(training))) <= set(parts.policy)
        assert set(np.concatenate(arrays(evaluation)[:2])) <= set(parts.evaluation)
        np.testing.assert_array_equal(evaluation.holdout, parts.test)
    for kind in (0, 1):
        sizes = {tuple(map(len, arrays(pair[kind]))) for pair in drawn}
        assert len(sizes) == 1, "sizes depend on the seed"
    if pool.split is not None:
        if (pool.split[pool.labels >= 0] == 2).any():
            np.testing.assert_array_equal(parts.test, np.flatnonzero((pool.split == 2) & (pool.labels >= 0)))
        for half, kind in ((parts.policy, 0), (parts.evaluation, 1)):
            marked = half[pool.split[half] == 1]
            if len(marked):
                np.testing.assert_array_equal(drawn[0][kind].validation, marked)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(12, 60), min_size=2, max_size=6),
    seed=st.integers(0, 1000),
)
def test_rows_are_stratified(counts: list[int], seed: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    pool = make(labels)
    for part, share in zip(arrays(partition(pool)), (0.375, 0.375, 0.25), strict=True):
        found = np.bincount(labels[part], minlength=len(counts))
        assert (abs(found - share * np.array(counts)) < 1).all()
    for roles in (training_roles(pool, seed), evaluation_roles(pool, seed)):
        for part in arrays(roles):
            assert set(labels[part]) == set(range(len(counts)))
    # Nothing is trimmed where rows stand alone.
    assert sum(map(len, arrays(training_roles(pool, seed)))) == len(partition(pool).policy)


def test_shares() -> None:
    pool = make(np.repeat(np.arange(4), 200))
    assert list(map(len, arrays(partition(pool)))) == [300, 300, 200]
    training, evaluation = training_roles(pool, 0), evaluation_roles(pool, 0)
    assert abs(len(training.holdout) / 300 - 0.25) < 0.02
    assert abs(len(training.validation) / 300 - 0.15) < 0.02
    assert abs(len(evaluation.validation) / 300 - 0.15) < 0.02


def test_groups_of_pure_classes_lose_few_rows() -> None:
    rng = np.random.default_rng(0)
    sizes = np.where(rng.random(900) < 0.9, 1, rng.integers(2, 7, 900))
    group = np.repeat(np.arange(900), sizes)
    labels = np.repeat(rng.integers(0, 4, 900), sizes)
    pool = make(labels, group=group.astype(str))
    kept = sum(map(len, arrays(training_roles(pool, 0))))
    assert kept > 0.9 * len(partition(pool).policy)


def test_seeds_draw_differently_and_repeatably() -> None:
    pool = make(np.repeat([0, 1], 60))
    np.testing.assert_array_equal(training_roles(pool, 0).pool, training_roles(pool, 0).pool)
    assert not np.array_equal(training_roles(pool, 0).pool, training_roles(pool, 1).pool)
    # Written down once: a change here changes every published result.
    assert training_roles(pool, 0).validation.tolist() == [14, 29, 57, 74, 103, 104]


def test_partition_does_not_know_the_seed_or_the_object() -> None:
    labels = np.repeat([0, 1, 2], 30)
    for a, b in zip(arrays(partition(make(labels))), arrays(partition(make(labels))), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        (make([0, 1, -1, -1, 0, 1]), "too few labelled rows of each class: none is left for test"),
        (make([0] * 40), "all labelled samples that serve for policy are of class 'c0'"),
        (make([0] * 20 + [1, 1]), "serve for test are of class 'c0'"),
        (make([0, 1] * 20, group=np.repeat(["a", "b"], 20)), "too few labelled groups"),
        (make([0, 1] * 20, split=np.full(40, 2)), "none is left for policy"),
        (make([0, 1] * 20 + [2]), r"Class 2 \('.*'\) has exactly one labelled sample, row 40"),
    ],
)
def test_too_little_data_is_named(pool: Pool, message: str) -> None:
    for draw in (training_roles, evaluation_roles):
        with pytest.raises(DataError, match=message):
            draw(pool, 0)


def test_a_group_across_splits_is_named() -> None:
    pool = make([0, 1] * 4, split=np.array([0, 2] * 4), group=np.array(list("aabbccdd")))
    with pytest.raises(DataError, match="Group 'a' of pool 'roles' has rows of several split"):
        partition(pool)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True])
def test_bad_seeds_are_named(seed: object) -> None:
    with pytest.raises(ConfigError, match=f"seed is {seed!r}"):
        training_roles(make(np.repeat([0, 1], 60)), seed)  # type: ignore[arg-type]


@given(
    n=st.integers(0, 500),
    shares=st.sampled_from([[0.5, 0.5], [0.25, 0.15, 0.6], [0.15, 0.85], [0.25, 0.375, 0.375]]),
)
def test_apportion(n: int, shares: list[float]) -> None:
    count = _apportion(n, shares)
    assert sum(count) == n
    assert all(abs(c - s * n) < 1.01 for c, s in zip(count, shares, strict=True))
    assert n < len(shares) or min(count) >= 1
