"""Synthetic pools: Gaussian clusters, with each kind of difficulty under its own control.

How modalities share the information about the class follows the partial information decomposition (Williams & Beer
2010, arXiv 1004.2515) as benchmarks of multimodal learning use it (Liang et al. 2023, arXiv 2302.12247).
"""

from __future__ import annotations

import numpy as np

from envs.pools import Pool
from envs.pools.checks import TEST, TRAIN
from envs.randomness import stream
from envs.sources.synthetic_spec import SyntheticSpec

CLUSTER_SHARES = (0.6, 0.3, 0.1)  # of a class: the rare clusters are what selection must find
TEST_SHARE = 0.25

_CLASS_SPREAD = 0.25  # distance of class centres in units of the noise, at strength 1 in 24 dims
_CLUSTER_SPREAD = 0.5  # of the centres of a class's clusters around its centre
_OUTLIER_SPREAD = 4.0


def make_synthetic(spec: SyntheticSpec) -> Pool:
    """Generate the pool that `spec` describes; the same spec gives the same pool.

    Features are float32 [N, dim] per modality, zeros where absent. The split marks 25 % of each
    class as test rows, whose labels are always right; outliers are training rows only.
    """
    sizes = spec.class_sizes()
    shuffle = _rng(spec, "rows").permutation(spec.samples)
    truth = np.repeat(np.arange(spec.classes), sizes)[shuffle]
    rank = np.concatenate([np.arange(size) for size in sizes])[shuffle]  # within the class
    split = np.where(rank < np.round(TEST_SHARE * sizes)[truth], TEST, TRAIN).astype(np.int8)
    x = _signals(spec, truth)

    train = _rng(spec, "order").permutation(np.flatnonzero(split == TRAIN))
    labels = truth.copy()
    far, flipped = round(spec.outliers * len(train)), round(spec.label_noise * len(train))
    far_rows, flip_rows = train[:far], train[len(train) - flipped :]  # 0.5 each at most: disjoint
    rng = _rng(spec, "outliers")
    x[far_rows] = rng.normal(0, _OUTLIER_SPREAD, (far, *x.shape[1:]))
    labels[far_rows] = rng.integers(0, spec.classes, far)
    shift = _rng(spec, "label_noise").integers(1, spec.classes, flipped)
    labels[flip_rows] = (labels[flip_rows] + shift) % spec.classes

    present = _presence(spec)
    _corrupt(spec, x, present)
    x[~present] = 0
    return Pool(
        name="synthetic",
        features={f"m{m}": x[:, m].astype(np.float32) for m in range(spec.modalities)},
        present=present,
        labels=labels,
        class_names=tuple(f"class {c}" for c in range(spec.classes)),
        ids=np.array([f"s{i:0{len(str(spec.samples - 1))}d}" for i in range(spec.samples)]),
        split=split,
        licence="CC0-1.0",
        source="generated",
        notes=str(spec),
    )


def _rng(spec: SyntheticSpec, purpose: str, *numbers: int) -> np.random.Generator:
    """A stream per purpose, so that one parameter does not change what another one draws."""
    return stream(spec.seed, f"synthetic: {purpose}", *numbers)


def _signals(spec: SyntheticSpec, truth: np.ndarray) -> np.ndarray:
    """What each modality shows of the classes `truth` [N], with noise; float64 [N, M, D]."""
    rng = _rng(spec, "clusters")
    cluster = rng.choice(len(CLUSTER_SHARES), spec.samples, p=CLUSTER_SHARES)
    fragment = (_rng(spec, "fragments").random((spec.samples, spec.modalities)) * spec.fragments_each).astype(np.int64)
    order = _rng(spec, "interaction").permutation(spec.samples)
    rows = {
        "unique": order[: round(spec.unique * spec.samples)],
        "synergy": order[spec.samples - round(spec.synergy * spec.samples) :],
    }
    codes = {"unique": _unique_codes(spec, truth), "synergy": _synergy_codes(spec, truth)}
    signals = []
    for m in range(spec.modalities):
        shown = _places(spec, m, "shared", rng, spec.classes)[truth, cluster, fragment[:, m]]
        noise = rng.normal(0, 1, (spec.samples, spec.dim))
        for kind, mine in rows.items():
            if not len(mine):
                continue
            code = codes[kind][mine, m]
            places = _places(spec, m, kind, _rng(spec, kind, m), spec.classes)
            shown[mine] = places[code, cluster[mine], fragment[mine, m]]
        signals.append(shown + noise)
    return np.stack(signals, axis=1)


def _places(spec: SyntheticSpec, m: int, kind: str, rng: np.random.Generator, count: int) -> np.ndarray:
    """Where modality m shows each of `count` codes, by cluster and fragment, [count, clusters, fragments, D]."""
    # Total distance stays the same in any number of dimensions.
    scale = spec.strengths[m] * np.sqrt(24 / spec.dim)
    shape = (count, len(CLUSTER_SHARES), spec.dim)
    centres = rng.normal(0, _CLASS_SPREAD * scale, (count, 1, spec.dim))
    offsets = [rng.normal(0, _CLUSTER_SPREAD * scale, shape)]
    more = range(1, spec.fragments_each[m])
    offsets += [_rng(spec, f"fragments, {kind}", m, f).normal(0, _CLUSTER_SPREAD * scale, shape) for f in more]
    return np.stack([centres + o for o in offsets], axis=2)


def _unique_codes(spec: SyntheticSpec, truth: np.ndarray) -> np.ndarray:
    """The digit of the class that each modality alone tells, [N, M]: no modality tells another one's."""
    bases = [1] * spec.modalities
    while np.prod(bases) < spec.classes:
        bases[int(np.argmin(bases))] += 1
    below = np.cumprod([1, *bases[:-1]])
    return truth[:, None] // below % np.array(bases)


def _synergy_codes(spec: SyntheticSpec, truth: np.ndarray) -> np.ndarray:
    """Numbers below C whose sum is the class modulo C, [N, M]: all but one of them say nothing (C = 2: XOR)."""
    codes = _rng(spec, "synergy codes").integers(0, spec.classes, (spec.samples, spec.modalities))
    codes[:, -1] = (truth - codes[:, :-1].sum(axis=1)) % spec.classes
    return codes


def _presence(spec: SyntheticSpec) -> np.ndarray:
    rng = _rng(spec, "missing")
    present = np.ones((spec.samples, spec.modalities), dtype=bool)
    if isinstance(spec.missing, tuple):
        # Each modality goes where the one before it ended, round and round: as the shares add up to M - 1 at most, no
        # row loses all.
        order = rng.permutation(spec.samples)
        ends = np.round(np.cumsum([0.0, *spec.missing]) * spec.samples).astype(np.int64)
        for m in range(spec.modalities):
            present[np.take(order, np.arange(ends[m], ends[m + 1]), mode="wrap"), m] = False
        return present
    kept = rng.integers(0, spec.modalities, spec.samples)
    may_go = np.flatnonzero(np.arange(spec.modalities) != kept[:, None])
    present.flat[rng.permutation(may_go)[: round(spec.missing * present.size)]] = False
    return present


def _corrupt(spec: SyntheticSpec, x: np.ndarray, present: np.ndarray) -> None:
    """Replace features of some samples by noise of the same mean and spread."""
    mean, spread = x.mean(axis=0), x.std(axis=0)  # [M, D]
    if isinstance(spec.corruption, tuple):
        for m, share in enumerate(spec.corruption):
            rng = _rng(spec, "corruption", m)
            rows = rng.permutation(spec.samples)[: round(share * spec.samples)]
            x[rows, m] = mean[m] + spread[m] * rng.normal(0, 1, (len(rows), spec.dim))
        return
    rng = _rng(spec, "corruption")
    rows = rng.permutation(spec.samples)[: round(spec.corruption * spec.samples)]
    which = np.argmax(np.where(present, rng.random(present.shape), -1), axis=1)[rows]
    x[rows, which] = mean[which] + spread[which] * rng.normal(0, 1, (len(rows), spec.dim))
