"""Which rows of a pool may serve for what.

A fixed partition keeps the rows that train selection policies apart from the rows that compare
them, and both apart from the test rows. Within the two halves, the roles of an episode are drawn
by its seed::

    labelled rows ─┬─ policy half ─────── pool | validation | holdout (the reward is measured here)
                   ├─ evaluation half ─── pool | validation
                   └─ test rows ───────── holdout of every comparison

What is dealt out are units: groups where the pool has them, rows otherwise. They are dealt
within strata (class and split value; groups that mix classes form one stratum), and large strata
in blocks of units of similar size. From each block each role gets a fixed number of units and
keeps a fixed number of rows, as many as the block's smallest units would bring. Hence the sizes
of the roles depend on the pool alone, not on the seed, and episodes of many seeds can be stacked.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from envs.errors import ConfigError, DataError
from envs.pools.checks import TEST, TRAIN, UNKNOWN, VALIDATION, at
from envs.pools.pool import Pool
from envs.randomness import stream

TEST_SHARE = 0.25  # of the labelled rows, where the pool does not name its test rows
HOLDOUT_SHARE = 0.25  # of the policy half: the rows that the reward is measured on
VALIDATION_SHARE = 0.15  # of either half

_BLOCK = 7  # units; the least that the shares above divide without gross rounding


@dataclass(frozen=True, eq=False)
class Roles:
    """Rows of one episode: int64 indices, sorted and disjoint."""

    pool: np.ndarray  # may be picked and labelled
    validation: np.ndarray  # tunes the task model
    holdout: np.ndarray  # scores the task model: reward rows in training, test rows in comparisons


@dataclass(frozen=True, eq=False)
class Start:
    """Where an episode begins: what its copies share."""

    seed: int
    roles: Roles
    initial: np.ndarray  # int64 [n] positions within roles.pool, labelled from the beginning

    @cached_property
    def digest(self) -> str:
        """Hash of everything that decides the start; equal digests make a fair pair."""
        h = hashlib.sha256(str(self.seed).encode())
        for part in (self.roles.pool, self.roles.validation, self.roles.holdout, self.initial):
            h.update(np.ascontiguousarray(part, np.int64).tobytes())
        return h.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Partition:
    """The division of a data set that holds for every seed: int64 indices, sorted, disjoint."""

    policy: np.ndarray  # selection policies are trained on these
    evaluation: np.ndarray  # strategies are compared on these
    test: np.ndarray  # and scored on these


_partitions: weakref.WeakKeyDictionary[Pool, Partition] = weakref.WeakKeyDictionary()


def partition(pool: Pool) -> Partition:
    """Divide the labelled rows of `pool`; the result depends on the pool alone.

    Test rows are those with split 2 or, where there are none, 25 % of the rows that are not
    marked for validation. The other labelled rows are halved. Rows with unknown labels are
    left out: simulated labelling needs to know the answer.

    Raises:
        DataError: if a group lies across split values, there are too few rows or classes, or a class has one row.
    """
    if pool not in _partitions:  # every episode asks for it
        _partitions[pool] = _partition(pool)
    return _partitions[pool]


def _partition(pool: Pool) -> Partition:
    _check_groups_within_split(pool)
    _check_classes(pool)
    rows = np.flatnonzero(pool.labels != UNKNOWN)
    split = np.full(len(rows), TRAIN) if pool.split is None else pool.split[rows]
    test = rows[split == TEST]
    rng = _rng("partition", 0)
    half = {"policy": 0.5, "evaluation": 0.5}
    if len(test):
        dealt = _deal(pool, rows[split != TEST], half, rng, trim=False)
    else:
        shares = {"test": TEST_SHARE} | {k: v * (1 - TEST_SHARE) for k, v in half.items()}
        dealt = _deal(pool, rows[split == TRAIN], shares, rng, trim=False)
        test = dealt["test"]
        marked = _deal(pool, rows[split == VALIDATION], half, rng, trim=False)
        dealt = {k: np.union1d(dealt[k], marked[k]) for k in half}
    result = Partition(dealt["policy"], dealt["evaluation"], np.sort(test))
    _require_classes(pool, vars(result))
    return result


def training_roles(pool: Pool, seed: int) -> Roles:
    """Draw the roles of a training episode within the policy half.

    25 % holdout (the reward rows), 15 % validation, the rest pool. Rows with split 1, where the
    half has any, are the validation rows instead.

    Raises:
        DataError: as `partition`, or if a role has no row.
        ConfigError: if `seed` is not a whole number of at least 0.
    """
    rows = partition(pool).policy
    return _draw(pool, rows, HOLDOUT_SHARE, _rng("training roles", seed))


def evaluation_roles(pool: Pool, seed: int) -> Roles:
    """Draw the roles of a comparison: 15 % of the evaluation half (or its rows with split 1)
    are validation rows, its rest is the pool, and the holdout are all test rows.

    Raises:
        DataError: as `partition`, or if a role has no row.
        ConfigError: if `seed` is not a whole number of at least 0.
    """
    parts = partition(pool)
    roles = _draw(pool, parts.evaluation, 0.0, _rng("evaluation roles", seed))
    return Roles(roles.pool, roles.validation, parts.test)


def _draw(pool: Pool, rows: np.ndarray, holdout: float, rng: np.random.Generator) -> Roles:
    marked = rows[:0] if pool.split is None else rows[pool.split[rows] == VALIDATION]
    shares = {"holdout": holdout, "validation": 0.0 if len(marked) else VALIDATION_SHARE}
    shares = {role: share for role, share in shares.items() if share}
    shares["pool"] = 1.0 - sum(shares.values())
    dealt = _deal(pool, np.setdiff1d(rows, marked), shares, rng, trim=True)
    if len(marked):
        dealt["validation"] = marked
    _require_rows(pool, dealt)
    _require_classes(pool, {"pool": dealt["pool"]})
    return Roles(dealt["pool"], dealt["validation"], dealt.get("holdout", rows[:0]))


def _rng(purpose: str, seed: int) -> np.random.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ConfigError(f"seed is {seed!r}; it must be a whole number of at least 0.")
    return stream(int(seed), purpose)


def _require_rows(pool: Pool, roles: Mapping[str, np.ndarray]) -> None:
    unit = "rows" if pool.group is None else "groups"
    for role, rows in roles.items():
        if len(rows) == 0:
            raise DataError(
                f"Pool '{pool.name}' has too few labelled {unit} of each class: none is left for {role}; add labelled "
                f"{unit}."
            )


def _require_classes(pool: Pool, roles: Mapping[str, np.ndarray]) -> None:
    _require_rows(pool, roles)
    for role, rows in roles.items():
        label = int(pool.labels[rows[0]])
        if (pool.labels[rows] == label).all():
            raise DataError(
                f"Pool '{pool.name}': all labelled samples that serve for {role} are of class "
                f"'{pool.class_names[label]}'; add labelled samples of other classes."
            )


def _check_groups_within_split(pool: Pool) -> None:
    if pool.group is None or pool.split is None:
        return
    names, code = np.unique(pool.group, return_inverse=True)
    lowest, highest = np.full(len(names), TEST), np.full(len(names), TRAIN)
    np.minimum.at(lowest, code, pool.split)
    np.maximum.at(highest, code, pool.split)
    if (lowest != highest).any():
        name = names[np.argmax(lowest != highest)]
        raise DataError(
            f"Group '{name}' of pool '{pool.name}' has rows of several split values; a group may "
            "serve in one role only, so give all its rows the same split."
        )


def _check_classes(pool: Pool) -> None:
    """Refuse a class with exactly one labelled sample: nothing would be left to test it on."""
    count = np.bincount(pool.labels[pool.labels != UNKNOWN], minlength=pool.num_classes)
    if (count == 1).any():
        label = int(np.argmax(count == 1))
        row = int(np.argmax(pool.labels == label))
        raise DataError(
            f"Pool '{pool.name}': Class {label} ('{pool.class_names[label]}') has exactly one labelled sample, "
            f"{at(row, pool.ids)}; add samples, merge the class into another, or set this label to -1."
        )


def _deal(
    pool: Pool,
    rows: np.ndarray,
    shares: Mapping[str, float],
    rng: np.random.Generator,
    *,
    trim: bool,
) -> dict[str, np.ndarray]:
    """Deal `rows` out to roles by `shares` (which sum to 1), whole units at a time.

    With `trim` each role keeps as many rows as do not depend on `rng`; without, all of them.
    """
    taken: dict[str, list[np.ndarray]] = {role: [rows[:0]] for role in shares}
    for unit, sizes in _blocks(pool, rows):
        ends = np.cumsum(sizes)
        order = rng.permutation(len(sizes))
        start = 0
        for role, count in zip(shares, _apportion(len(sizes), list(shares.values())), strict=True):
            mine = order[start : start + count]
            start += count
            chosen = np.concatenate([unit[:0], *(unit[ends[i] - sizes[i] : ends[i]] for i in mine)])
            if trim:
                keep = int(sizes[:count].sum())  # sizes ascend
                if role != "pool":  # what a large group brings beyond the share serves nobody
                    keep = min(keep, max(1, int(np.ceil(shares[role] * sizes.sum()))))
                chosen = rng.permutation(chosen)[:keep]
            taken[role].append(chosen)
    return {role: np.sort(np.concatenate(parts)) for role, parts in taken.items()}


def _blocks(pool: Pool, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of units of one stratum: their rows, unit after unit, and the units' sizes
    (ascending)."""
    if len(rows) == 0:
        return
    code = np.arange(len(rows))
    if pool.group is not None:
        code = np.unique(pool.group[rows], return_inverse=True)[1]
    rows, sizes = rows[np.argsort(code, kind="stable")], np.bincount(code)
    starts = np.cumsum(sizes) - sizes
    label = np.minimum.reduceat(pool.labels[rows], starts)
    label[label != np.maximum.reduceat(pool.labels[rows], starts)] = UNKNOWN  # mixed classes
    split = np.zeros_like(label) if pool.split is None else pool.split[rows[starts]]
    for stratum in sorted(set(zip(label.tolist(), split.tolist(), strict=True))):
        units = np.flatnonzero((label == stratum[0]) & (split == stratum[1]))
        units = units[np.argsort(sizes[units], kind="stable")]
        edges = _block_edges(sizes[units])
        for start, end in pairwise(edges):
            some = units[start:end]
            yield (
                np.concatenate([rows[starts[u] : starts[u] + sizes[u]] for u in some]),
                sizes[some],
            )


def _block_edges(sizes: np.ndarray) -> list[int]:
    """Cut ascending sizes where they change, into blocks of at least `_BLOCK` units."""
    edges = [0]
    for i in range(1, len(sizes)):
        if i - edges[-1] >= _BLOCK and sizes[i] != sizes[edges[-1]]:
            edges.append(i)
    if len(edges) > 1 and len(sizes) - edges[-1] < _BLOCK // 2:
        edges.pop()
    return [*edges, len(sizes)]


def _apportion(n: int, shares: list[float]) -> list[int]:
    """Divide n units by shares: largest remainders, and one for each role where n suffices."""
    exact = np.array(shares) * n
    count = np.floor(exact + 1e-9).astype(int)
    if n >= len(shares):
        count = np.maximum(count, 1)
    while count.sum() < n:
        count[np.argmax(np.round(exact - count, 9))] += 1
    while count.sum() > n:
        count[np.argmin(np.where(count > 1, np.round(exact - count, 9), np.inf))] -= 1
    return count.tolist()
