"""Synthetic pools: Gaussian clusters, with each kind of difficulty under its own control."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from envs.errors import ConfigError, nearest
from envs.fields import Finite, Section
from envs.pools import Pool
from envs.pools.checks import TEST, TRAIN
from envs.randomness import stream

CLUSTER_SHARES = (0.6, 0.3, 0.1)  # of a class: the rare clusters are what selection must find
TEST_SHARE = 0.25

_CLASS_SPREAD = 0.25  # distance of class centres in units of the noise, at strength 1 in 24 dims
_CLUSTER_SPREAD = 0.5  # of the centres of a class's clusters around its centre
_OUTLIER_SPREAD = 4.0
_SMALLEST_CLASS = 8  # rows; fewer cannot be divided into all the roles
_DRAWS = 1000  # attempts at a pool of the family that fits the fixed parameters
_SHORT = {"noise": "label_noise"}


@dataclass(frozen=True)
class SyntheticSpec(Section, prefix="synthetic: "):
    """Parameters of a synthetic pool. Shares are fractions of 1; parameters act independently of each other,
    so pools that differ in one of them share everything that it does not touch.

    Attributes:
        samples: N, test rows (25 %) included.
        classes: C.
        modalities: M, named m0, m1, …
        dim: features per modality.
        strength: how far apart the classes are, one number for all modalities or one for each;
            None: falling evenly from 1 to 0.6.
        corruption: share of samples of which one modality, drawn at random, is only noise.
        missing: share of the N x M entries that are absent; each sample keeps at least one.
        label_noise: share of the rows outside the test set whose label is flipped.
        outliers: share of the rows outside the test set that lie far away with random labels.
        imbalance: size of the largest class divided by that of the smallest.
        seed: of everything random.

    Raises:
        ConfigError: naming the parameter, its value and what is allowed.
    """

    samples: Annotated[int, Ge(1)] = 2000
    classes: Annotated[int, Ge(2)] = 8
    modalities: Annotated[int, Ge(1)] = 3
    dim: Annotated[int, Ge(1)] = 24
    strength: float | tuple[float, ...] | None = None
    corruption: Annotated[float, Ge(0), Le(1)] = 0.0
    missing: Annotated[float, Ge(0), Le(1)] = 0.0
    label_noise: Annotated[float, Ge(0), Le(0.5)] = 0.0
    outliers: Annotated[float, Ge(0), Le(0.5)] = 0.0
    imbalance: Annotated[float, Ge(1), Finite()] = 1.0
    seed: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        limit = (self.modalities - 1) / self.modalities
        if self.missing > limit:
            raise ConfigError(
                f"synthetic: missing is {self.missing}; it must be in [0, {limit:.3g}] with {self.modalities} "
                "modalities."
            )
        if len(self.strengths) != self.modalities:
            raise ConfigError(
                f"synthetic: strength has {len(self.strengths)} values for {self.modalities} "
                "modalities; give one number, or one for each modality (1:0.6:0.3)."
            )
        if not all(0 <= s < np.inf for s in self.strengths):
            raise ConfigError(f"synthetic: strength is {self.strength}; it must be at least 0 and finite.")
        smallest = int(self.class_sizes().min())
        if smallest < _SMALLEST_CLASS:
            raise ConfigError(
                f"synthetic: the smallest class would have {smallest} of {self.samples} samples, "
                f"fewer than {_SMALLEST_CLASS}; raise samples, or lower classes or imbalance."
            )

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strength of each modality."""
        if self.strength is None:
            return tuple(np.linspace(1.0, 0.6, self.modalities).tolist())
        if isinstance(self.strength, tuple):
            return self.strength
        return (float(self.strength),) * self.modalities

    def class_sizes(self) -> np.ndarray:
        """Rows per class, int64 [C], descending geometrically from the largest to the smallest."""
        weight = self.imbalance ** -np.linspace(0, 1, self.classes)
        edges = np.round(np.cumsum(weight) / weight.sum() * self.samples).astype(np.int64)
        return np.diff(edges, prepend=0)


def parse_spec(text: str) -> SyntheticSpec:
    """Read ``key=value,…`` as on the command line: ``noise=0.3,strength=1:0.6:0.3,seed=1``.

    ``noise`` is short for ``label_noise``.

    Raises:
        ConfigError: on unknown parameters (with the nearest valid name) and bad values.
    """
    return SyntheticSpec(**parse_parameters(text))


def parse_parameters(text: str) -> dict[str, Any]:
    """The parameters that the text names, read but not yet compared with what is allowed; see `parse_spec`."""
    default = {f.name: f.default for f in dataclasses.fields(SyntheticSpec)}
    values: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        key = _SHORT.get(key, key)
        if key not in default:
            raise ConfigError(
                f"synthetic: unknown parameter '{key}'.{nearest(key, [*default, *_SHORT])} "
                f"Parameters: {', '.join(default)}."
            )
        if key in values:
            raise ConfigError(f"synthetic: {key} is given twice.")
        try:
            if key == "strength":
                numbers = tuple(float(part) for part in value.split(":"))
                values[key] = numbers if len(numbers) > 1 else numbers[0]
            else:
                values[key] = int(value) if isinstance(default[key], int) else float(value)
        except ValueError:
            kind = "a whole number" if isinstance(default[key], int) else "a number"
            shown = value if equals else "missing"
            raise ConfigError(f"synthetic: {key} is '{shown}'; it must be {kind}.") from None
    return values


def format_spec(spec: SyntheticSpec) -> str:
    """The text that `parse_spec` reads back as `spec`."""
    given = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
    given["strength"] = ":".join(repr(s) for s in spec.strengths)
    return ",".join(f"{name}={value}" for name, value in given.items())


def draw_spec(rng: np.random.Generator, **fixed: Any) -> SyntheticSpec:
    """A pool of the family: everything random, but for the parameters in `fixed`.

    samples: 1,000 to 3,000. classes: 2 to 20, log-uniform. modalities: 1 to 4. dim: 4 to 64, log-uniform.
    strength: their Euclidean norm 1 to 2.2 (the default pool: 1.4), shared out with proportions of 0.2 to 1.
    label_noise: none, or (every second pool) up to 0.35. outliers: none, or (every third) up to 0.1.
    corruption, missing: none, or (every third each) up to 0.5. imbalance: 1, or (every second) up to 20, log-uniform.

    Raises:
        ConfigError: where the fixed parameters allow no pool.
    """
    for _ in range(_DRAWS):
        modalities = int(fixed.get("modalities", rng.integers(1, 5)))
        shares = rng.uniform(0.2, 1.0, max(modalities, 1))
        strengths = np.round(rng.uniform(1.0, 2.2) * shares / np.linalg.norm(shares), 3).tolist()
        drawn: dict[str, Any] = {
            "samples": int(rng.integers(1000, 3001)),
            "classes": _log_uniform(rng, 2, 20),
            "modalities": modalities,
            "dim": _log_uniform(rng, 4, 64),
            "strength": tuple(strengths) if modalities > 1 else strengths[0],
            "label_noise": _sometimes(rng, 1 / 2, 0.35),
            "outliers": _sometimes(rng, 1 / 3, 0.1),
            "corruption": _sometimes(rng, 1 / 3, 0.5),
            "missing": min(_sometimes(rng, 1 / 3, 0.5), (modalities - 1) / max(modalities, 1)),
            "imbalance": round(float(np.exp(rng.uniform(0, np.log(20)))), 3) if rng.random() < 0.5 else 1.0,
            "seed": int(rng.integers(2**31)),
        }
        try:
            return SyntheticSpec(**(drawn | fixed))
        except ConfigError as error:  # too many classes for this imbalance and size, say
            refused = error
    raise refused


def _log_uniform(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number from `low` to `high`, each doubling of it as likely as any other."""
    return int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))


def _sometimes(rng: np.random.Generator, chance: float, most: float) -> float:
    """0, or with this chance something up to `most`; as many random numbers either way."""
    value = round(float(rng.uniform(0, most)), 3)
    return value if rng.random() < chance else 0.0


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

    rng = _rng(spec, "clusters")
    cluster = rng.choice(len(CLUSTER_SHARES), spec.samples, p=CLUSTER_SHARES)
    features = []
    for strength in spec.strengths:
        # Total distance stays the same in any number of dimensions.
        scale = strength * np.sqrt(24 / spec.dim)
        classes = rng.normal(0, _CLASS_SPREAD * scale, (spec.classes, 1, spec.dim))
        offsets = rng.normal(0, _CLUSTER_SPREAD * scale, (spec.classes, len(CLUSTER_SHARES), spec.dim))
        noise = rng.normal(0, 1, (spec.samples, spec.dim))
        features.append((classes + offsets)[truth, cluster] + noise)
    x = np.stack(features, axis=1)  # [N, M, D]

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


def _rng(spec: SyntheticSpec, purpose: str) -> np.random.Generator:
    """A stream per purpose, so that one parameter does not change what another one draws."""
    return stream(spec.seed, f"synthetic: {purpose}")


def _presence(spec: SyntheticSpec) -> np.ndarray:
    rng = _rng(spec, "missing")
    present = np.ones((spec.samples, spec.modalities), dtype=bool)
    kept = rng.integers(0, spec.modalities, spec.samples)
    may_go = np.flatnonzero(np.arange(spec.modalities) != kept[:, None])
    present.flat[rng.permutation(may_go)[: round(spec.missing * present.size)]] = False
    return present


def _corrupt(spec: SyntheticSpec, x: np.ndarray, present: np.ndarray) -> None:
    """Replace one present modality of some samples by noise of the same mean and spread."""
    rng = _rng(spec, "corruption")
    rows = rng.permutation(spec.samples)[: round(spec.corruption * spec.samples)]
    which = np.argmax(np.where(present, rng.random(present.shape), -1), axis=1)[rows]
    mean, spread = x.mean(axis=0), x.std(axis=0)  # [M, D]
    x[rows, which] = mean[which] + spread[which] * rng.normal(0, 1, (len(rows), spec.dim))
