"""The layout of an observation: one record for each entry, from which spaces, precision and size follow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from envs.candidates.features import STATE
from envs.candidates.view import FISHER_SKETCH, GRADIENT_SKETCH, HIDDEN_SKETCH, INPUT_SKETCH


@dataclass(frozen=True)
class Field:
    """One entry of an observation; `envs.candidates.offer.Candidates` has an attribute of its name."""

    name: str
    dtype: str  # as numpy and torch call it
    shape: tuple[str | int, ...]  # "K" candidates, "F" static features, "S" entries of the state
    doc: str
    low: float = -math.inf
    high: float = math.inf
    halved: bool = False  # rounded to half precision, the type in which our own policies and processes have it
    on_demand: bool = False  # our own policies have it computed only where a batch feature reads it

    def type_of(self, half: bool) -> str:
        """The type in an observation for anybody, or with `half` for our own policies."""
        return "float16" if half and self.halved else self.dtype

    def sizes(self, slots: int, features: int) -> tuple[int, ...]:
        """The shape in numbers."""
        named = {"K": slots, "F": features, "S": len(STATE)}
        return tuple(named[size] if isinstance(size, str) else size for size in self.shape)

    def of(self, values: Tensor, half: bool) -> Tensor:
        """Values in that type: the same numbers in either, so copies of a start see the same to the last digit."""
        return values.to(getattr(torch, self.type_of(True))).to(getattr(torch, self.type_of(half)))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} [{', '.join(map(str, self.shape))}], {self.doc}"


OBSERVATION: dict[str, Field] = {
    field.name: field
    for field in (
        Field(
            "features",
            "float32",
            ("K", "F"),
            "the named static features of each candidate: ranks in [-1, 1], or log ratios",
            halved=True,
        ),
        Field("gradient", "float32", ("K", GRADIENT_SKETCH), "sketch of its gradient embedding", halved=True),
        Field("hidden", "float32", ("K", HIDDEN_SKETCH), "sketch of its normalised hidden features", halved=True),
        Field(
            "fisher",
            "float32",
            ("K", FISHER_SKETCH),
            "its Fisher embedding, whitened by what is labelled",
            halved=True,
            on_demand=True,
        ),
        Field(
            "input",
            "float32",
            ("K", INPUT_SKETCH),
            "its input features, scaled to length 1 as a whole",
            halved=True,
            on_demand=True,
        ),
        Field(
            "input_distance",
            "float32",
            ("K",),
            "to the nearest labelled one, in those",
            halved=True,
            on_demand=True,
        ),
        Field(
            "uncertainty",
            "float32",
            ("K",),
            "1 less the margin of its most probable class",
            0,
            1,
            halved=True,
            on_demand=True,
        ),
        Field("labelled_distance", "float32", ("K",), "to the nearest labelled one, in hidden features", halved=True),
        Field("predicted", "int16", ("K",), "predicted class", 0, np.iinfo(np.int16).max),
        Field("valid", "int8", ("K",), "0 where the slot is empty", 0, 1),
        Field("state", "float32", ("S",), "one entry for each of `envs.candidates.STATE`"),
    )
}

ON_DEMAND = tuple(name for name, field in OBSERVATION.items() if field.on_demand)


class UniformBox(spaces.Box):
    """A Box with one lower and one upper bound, which pickles in a few bytes.

    A Box carries its bounds entry by entry: over ten megabytes for a batch of candidates, sent to every process.
    """

    def __init__(self, low: float, high: float, shape: tuple[int, ...], dtype: Any):
        self._arguments = (low, high, tuple(shape), np.dtype(dtype).str)
        super().__init__(low, high, shape, dtype)

    def __reduce__(self) -> tuple[type[UniformBox], tuple[Any, ...]]:
        return UniformBox, self._arguments


def observation_space(slots: int, features: int, episodes: int | None = None, half: bool = False) -> spaces.Dict:
    """Observations of K = `slots` candidates with F = `features` static features; E of them with `episodes`.

    Args:
        half: for our own policies, in the precision in which they see them.
    """
    batch = () if episodes is None else (episodes,)
    return spaces.Dict(
        {
            name: UniformBox(field.low, field.high, batch + field.sizes(slots, features), np.dtype(field.type_of(half)))
            for name, field in OBSERVATION.items()
        }
    )


def observation_bytes(slots: int, features: int) -> int:
    """The size of one episode's observation in one round, as our own processes hold and send it."""
    return sum(
        math.prod(field.sizes(slots, features)) * np.dtype(field.type_of(True)).itemsize
        for field in OBSERVATION.values()
    )
