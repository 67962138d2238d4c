"""The observation and action spaces of an episode, single and batched."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from envs.candidates.offer import GRADIENT_SKETCH, HIDDEN_SKETCH, STATE_NAMES


class UniformBox(spaces.Box):
    """A Box with one lower and one upper bound, which pickles in a few bytes.

    A Box carries its bounds entry by entry: over ten megabytes for a batch of candidates, sent to every process.
    """

    def __init__(self, low: float, high: float, shape: tuple[int, ...], dtype: Any):
        self._arguments = (low, high, tuple(shape), np.dtype(dtype).str)
        super().__init__(low, high, shape, dtype)

    def __reduce__(self):
        return UniformBox, self._arguments


def observation_space(slots: int, features: int, episodes: int | None = None) -> spaces.Dict:
    """Observations of K = `slots` candidates with F = `features` static features; E of them with `episodes`."""
    batch = () if episodes is None else (episodes,)

    def half(*shape: int) -> UniformBox:
        return UniformBox(-np.inf, np.inf, (*batch, *shape), np.float16)

    return spaces.Dict(
        {
            "features": half(slots, features),
            "gradient": half(slots, GRADIENT_SKETCH),
            "hidden": half(slots, HIDDEN_SKETCH),
            "labelled_distance": half(slots),
            "predicted": UniformBox(0, np.iinfo(np.int16).max, (*batch, slots), np.int16),
            "valid": UniformBox(0, 1, (*batch, slots), np.int8),
            "state": UniformBox(-np.inf, np.inf, (*batch, len(STATE_NAMES)), np.float32),
        }
    )
