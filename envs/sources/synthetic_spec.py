"""Parameters of synthetic pools: what each means, how a name spells them, and how a family draws them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le

from envs.errors import ConfigError, nearest, shorten
from envs.fields import Declaration, Finite, Section

_SMALLEST_CLASS = 8  # rows; fewer cannot be divided into all the roles
_DRAWS = 1000  # attempts at a pool of the family that fits the fixed parameters
_SHORT = {"noise": "label_noise"}
# Parameters that hold one number, or one for each modality: what a number may be.
_PER_MODALITY = {
    "strength": Declaration(float, False, (Ge(0), Finite())),
    "fragments": Declaration(int, False, (Ge(1), Le(100))),
    "corruption": Declaration(float, False, (Ge(0), Le(1))),
    "missing": Declaration(float, False, (Ge(0), Le(1))),
}


@dataclass(frozen=True)
class SyntheticSpec(Section, prefix="synthetic: "):
    """Parameters of a synthetic pool. Shares are fractions of 1; parameters act independently of each other,
    so pools that differ in one of them share everything that it does not touch.

    Each modality alone tells the class of most samples, as far as noise lets it: the information is shared (redundant).
    `unique` and `synergy` say of how many samples that is not so.

    Attributes:
        samples: N, test rows (25 %) included.
        classes: C.
        modalities: M, named m0, m1, …
        dim: features per modality.
        strength: how far apart the classes are, one number for all modalities or one for each;
            None: falling evenly from 1 to 0.6. A weak modality tells less, however many labels there are.
        corruption: share of samples of which one modality, drawn at random, is only noise; or for each modality the
            share of samples of which it is only noise.
        missing: share of the N x M entries that are absent; or for each modality the share of samples that lack it.
            Each sample keeps at least one.
        label_noise: share of the rows outside the test set whose label is flipped.
        outliers: share of the rows outside the test set that lie far away with random labels.
        imbalance: size of the largest class divided by that of the smallest.
        seed: of everything random.
        fragments: places that each cluster of a class has, one number for all modalities or one for each. A fragmented
            modality tells nearly as much, but only to whom has many labels.
        unique: share of samples whose class is told in parts, of which each modality holds one: a digit of the class's
            number in a mixed radix. No modality tells what another one does.
        synergy: share of samples whose class only all modalities together tell, as in XOR; without one of them the
            others say nothing.

    Raises:
        ConfigError: naming the parameter, its value and what is allowed.
    """

    samples: Annotated[int, Ge(1)] = 2000
    classes: Annotated[int, Ge(2)] = 8
    modalities: Annotated[int, Ge(1)] = 3
    dim: Annotated[int, Ge(1)] = 24
    strength: float | tuple[float, ...] | None = None
    corruption: float | tuple[float, ...] = 0.0
    missing: float | tuple[float, ...] = 0.0
    label_noise: Annotated[float, Ge(0), Le(0.5)] = 0.0
    outliers: Annotated[float, Ge(0), Le(0.5)] = 0.0
    imbalance: Annotated[float, Ge(1), Finite()] = 1.0
    seed: Annotated[int, Ge(0)] = 0
    fragments: int | tuple[int, ...] = 1
    unique: Annotated[float, Ge(0), Le(1)] = 0.0
    synergy: Annotated[float, Ge(0), Le(1)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in _PER_MODALITY:
            self._check_per_modality(name)
        self._check_missing()
        if self.unique + self.synergy > 1:
            raise ConfigError(
                f"synthetic: unique is {self.unique} and synergy is {self.synergy}; their sum must be at most 1."
            )
        if self.modalities == 1 and (self.unique or self.synergy):
            raise ConfigError(
                f"synthetic: unique is {self.unique} and synergy is {self.synergy} with 1 modality; "
                "raise modalities to 2, or leave both out."
            )
        smallest = int(self.class_sizes().min())
        if smallest < _SMALLEST_CLASS:
            raise ConfigError(
                f"synthetic: the smallest class would have {smallest} of {self.samples} samples, "
                f"fewer than {_SMALLEST_CLASS}; raise samples, or lower classes or imbalance."
            )

    def _check_per_modality(self, name: str) -> None:
        value = getattr(self, name)
        if isinstance(value, tuple) and len(value) != self.modalities:
            raise ConfigError(
                f"synthetic: {name} has {len(value)} values for {self.modalities} "
                f"modalities; give one number, or one for each modality ({name}=1:…)."
            )
        if name == "strength" and value is None:
            return
        several = isinstance(value, tuple)
        for m, number in enumerate(value if several else (value,)):
            refusal = _PER_MODALITY[name].refusal(number)
            if refusal:
                raise ConfigError(f"synthetic: {name}{f' of m{m}' * several} is {shorten(number)}{refusal}")

    def _check_missing(self) -> None:
        most = self.modalities - 1
        if isinstance(self.missing, tuple):
            if sum(self.missing) > most:
                raise ConfigError(
                    f"synthetic: missing adds up to {sum(self.missing):.3g}; with {self.modalities} modalities it may "
                    f"be {most} at most, for each sample keeps one."
                )
        elif self.missing > most / self.modalities:
            raise ConfigError(
                f"synthetic: missing is {self.missing}; it must be in [0, {most / self.modalities:.3g}] with "
                f"{self.modalities} modalities."
            )

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strength of each modality."""
        if self.strength is None:
            return tuple(np.linspace(1.0, 0.6, self.modalities).tolist())
        if isinstance(self.strength, tuple):
            return self.strength
        return (float(self.strength),) * self.modalities

    @property
    def fragments_each(self) -> tuple[int, ...]:
        """The places that each cluster has in each modality."""
        return self.fragments if isinstance(self.fragments, tuple) else (self.fragments,) * self.modalities

    def class_sizes(self) -> np.ndarray:
        """Rows per class, int64 [C], descending geometrically from the largest to the smallest."""
        weight = self.imbalance ** -np.linspace(0, 1, self.classes)
        edges = np.round(np.cumsum(weight) / weight.sum() * self.samples).astype(np.int64)
        return np.diff(edges, prepend=0)


def parse_spec(text: str) -> SyntheticSpec:
    """Read ``key=value,…`` as on the command line: ``noise=0.3,strength=1:0.6:0.3,seed=1``.

    ``noise`` is short for ``label_noise``; colons separate numbers for each modality.

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
        whole = isinstance(default[key], int)
        parts = value.split(":") if key in _PER_MODALITY else [value]
        try:
            numbers = tuple(int(part) if whole else float(part) for part in parts)
            values[key] = numbers if len(numbers) > 1 else numbers[0]
        except ValueError:
            kind = "a whole number" if whole else "a number"
            shown = value if equals else "missing"
            raise ConfigError(f"synthetic: {key} is '{shown}'; it must be {kind}.") from None
    return values


def format_spec(spec: SyntheticSpec) -> str:
    """The text that `parse_spec` reads back as `spec`."""
    given = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
    given["strength"] = spec.strengths
    return ",".join(f"{name}={_spelled(value)}" for name, value in given.items())


def _spelled(value: Any) -> str:
    return ":".join(map(str, value)) if isinstance(value, tuple) else str(value)


def draw_spec(rng: np.random.Generator, **fixed: Any) -> SyntheticSpec:
    """A pool of the family: everything random, but for the parameters in `fixed`.

    samples: 1,000 to 3,000. classes: 2 to 20, log-uniform. modalities: 1 to 4. dim: 4 to 64, log-uniform.
    strength: their Euclidean norm 1 to 2.2 (the default pool: 1.4), shared out with proportions of 0.2 to 1.
    label_noise: none, or (every second pool) up to 0.35. outliers: none, or (every third) up to 0.1.
    corruption, missing: none, or (every third each) up to 0.5. imbalance: 1, or (every second) up to 20, log-uniform.
    fragments, unique, synergy: none, unless fixed.

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
