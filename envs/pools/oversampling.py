"""Larger pools from the rows of a small one: samples between neighbours of a class, as SMOTE makes them.

Chawla et al. 2002, "SMOTE: Synthetic Minority Over-sampling Technique" (arXiv 1106.1813), here for all classes and for
all modalities of a sample together. A data set of some hundred labels then supplies episodes of any budget, whose
classes lie as its own do and not as generated clusters.
"""

from __future__ import annotations

import numpy as np

from envs.pools.partition import Roles
from envs.pools.pool import Pool

NEIGHBOURS = 7  # of a sample, within its class and role, that it is mixed with
NOISE = 0.3  # deviation of what random numbers give back, in deviations of what mixing takes from a sample
HOLDOUT_ROWS, VALIDATION_ROWS = 400, 150
SPARE = (1.25, 4.0)  # rows to choose from, in budgets
FEWEST_ROWS = 300
FEWEST_CLASSES = 3
LABEL_NOISE = 0.2  # at most, of every second pool


def oversample(pool: Pool, roles: Roles, budget: int, rng: np.random.Generator) -> tuple[Pool, Roles]:
    """A pool whose rows lie between those of `pool`, with the roles of its rows.

    Every row comes from rows of its own role alone. How hard it is to learn differs from draw to draw: each modality
    keeps a random part of its columns, some pools hold some of the classes only, in some a part of the labels is wrong.

    Args:
        pool: with labels for all rows of the roles.
        roles: of the rows that may be used; classes that the pool's role lacks do not occur.
        budget: labels that an episode buys; there are more rows than that to choose from.
    """
    classes = np.unique(pool.labels[roles.pool])
    if rng.random() < 0.5 and len(classes) > FEWEST_CLASSES:
        classes = rng.choice(classes, rng.integers(FEWEST_CLASSES, len(classes) + 1), replace=False)
    columns = {name: _some_columns(x.shape[1], rng) for name, x in pool.features.items()}
    rows = max(FEWEST_ROWS, round(budget * np.exp(rng.uniform(*np.log(SPARE)))))
    parts, sizes = [], [rows, VALIDATION_ROWS, HOLDOUT_ROWS]
    for given, size in zip((roles.pool, roles.validation, roles.holdout), sizes, strict=True):
        some = given[np.isin(pool.labels[given], classes)]
        parts.append(_between(pool, some if len(some) else given, columns, size, rng))
    features = {name: np.concatenate([part[0][name] for part in parts]) for name in pool.features}
    labels = np.concatenate([part[1] for part in parts])
    if rng.random() < 0.5:
        wrong = np.flatnonzero(rng.random(len(labels)) < rng.uniform(0, LABEL_NOISE))
        labels[wrong] = rng.choice(classes, len(wrong))
    made = Pool(
        name=f"{pool.name}, oversampled",
        features=features,
        present=np.concatenate([part[2] for part in parts]),
        labels=np.searchsorted(np.unique(labels), labels),
        class_names=tuple(pool.class_names[c] for c in np.unique(labels)),
        ids=np.array([f"o{i}" for i in range(len(labels))]),
    )
    ends = np.cumsum(sizes)
    return made, Roles(*(np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)))


def _some_columns(count: int, rng: np.random.Generator) -> np.ndarray:
    """All columns or, as often, a random part of them down to a tenth."""
    share = 1.0 if rng.random() < 0.5 else np.exp(rng.uniform(np.log(0.1), 0.0))
    return np.sort(rng.choice(count, max(min(count, 4), round(share * count)), replace=False))


def _between(
    pool: Pool, rows: np.ndarray, columns: dict[str, np.ndarray], size: int, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """So many samples between neighbours among the rows: features by modality, labels, presence."""
    labels, present = pool.labels[rows], pool.present[rows]
    x = {name: pool.take(name, rows)[:, at].astype(np.float32) for name, at in columns.items()}
    one = rng.integers(0, len(rows), size)
    near = _neighbours(x, labels)
    other = near[one, rng.integers(0, near.shape[1], size)]
    weight = rng.random((size, 1), dtype=np.float32)
    lost = NOISE * np.sqrt(2.0 * weight * (1.0 - weight))
    made = {}
    for m, (name, values) in enumerate(x.items()):
        both = (present[one, m] & present[other, m])[:, None]  # else the sample as it is
        spread = values[present[:, m]].std(0) if present[:, m].any() else 0.0
        noise = rng.standard_normal((size, values.shape[1]), dtype=np.float32) * spread
        made[name] = values[one] + both * (weight * (values[other] - values[one])) + lost * noise
    return made, labels[one], present[one]


def _neighbours(x: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Rows of each row's class nearest to it, itself among them where there are too few, [R, NEIGHBOURS]."""
    scaled = [(v - v.mean(0)) / (v.std(0) + 1e-6) / np.sqrt(v.shape[1]) for v in x.values()]
    z = np.concatenate(scaled, 1)
    squares = (z**2).sum(1)
    distance = squares[:, None] + squares - 2.0 * z @ z.T
    distance[labels[:, None] != labels] = np.inf
    np.fill_diagonal(distance, np.inf)
    count = min(NEIGHBOURS, len(labels))
    nearest = np.argpartition(distance, count - 1, 1)[:, :count]
    reachable = np.isfinite(np.take_along_axis(distance, nearest, 1))
    return np.where(reachable, nearest, np.arange(len(labels))[:, None])
