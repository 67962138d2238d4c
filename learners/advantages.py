"""Advantages: what a batch was worth compared with what was to be expected. Pure numpy, no ray.

An estimator sees all the episodes of an iteration at once, so groups stay whole whatever the number of
environment runners and learners; what it remembers between iterations goes into checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np


class Advantages(Protocol):
    """An estimator of advantages."""

    def __call__(self, rewards: np.ndarray, group: np.ndarray, source: np.ndarray) -> np.ndarray:
        """Advantages [n, T] of n episodes.

        Args:
            rewards: [n, T].
            group: int [n]; equal numbers share everything but the draws.
            source: int [n], the data set of each.
        """

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


class GroupAdvantages:
    """Return-to-go minus the mean of its group at that round, over the source's standard deviation.

    Copies of a start differ by their draws alone, so the group's mean removes what the start decides; one scale
    per source keeps an easy data set from drowning a noisy one.
    """

    def __call__(self, rewards: np.ndarray, group: np.ndarray, source: np.ndarray) -> np.ndarray:
        to_go = rewards[:, ::-1].cumsum(1)[:, ::-1]
        advantages = np.empty_like(to_go)
        for g in np.unique(group):
            members = group == g
            advantages[members] = to_go[members] - to_go[members].mean(0)
        for s in np.unique(source):
            members = source == s
            advantages[members] /= advantages[members].std() + 1e-8
        return advantages

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


class MovingAverageAdvantages:
    """One-step reward minus the moving average of past rewards (RL-MBA), optionally clipped.

    Args:
        decay: share of the average that survives an iteration, in [0, 1).
        clip: largest magnitude of an advantage; 0 for none.
    """

    def __init__(self, decay: float, clip: float):
        self.decay, self.clip = decay, clip
        self.average: float | None = None

    def __call__(self, rewards: np.ndarray, group: np.ndarray, source: np.ndarray) -> np.ndarray:
        mean = float(rewards.mean())
        advantages = rewards - (mean if self.average is None else self.average)
        self.average = mean if self.average is None else self.decay * self.average + (1 - self.decay) * mean
        return np.clip(advantages, -self.clip, self.clip) if self.clip else advantages

    def get_state(self) -> dict[str, Any]:
        return {"average": self.average}

    def set_state(self, state: dict[str, Any]) -> None:
        self.average = state["average"]


ADVANTAGES: dict[str, Callable[..., Advantages]] = {
    "group": lambda decay, clip: GroupAdvantages(),
    "ema": MovingAverageAdvantages,
}
