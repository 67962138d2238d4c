"""Reward terms: what a round of labels was worth. Each term is a function; their weighted sum is the reward."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from envs.errors import ConfigError
from envs.fields import Finite, Section
from envs.simulation import Measurements


@dataclass(frozen=True)
class Outcome:
    """What one round of labels changed: measurements before and after it."""

    before: Measurements
    after: Measurements
    weights: Tensor  # [E, M] AMCB weights after the round
    baseline: Tensor  # [E] accuracy of the paired baselines after the round; 0 where none is known


TERMS: dict[str, Callable[[Outcome], Tensor]] = {
    # The paper's r_t: Top-1 relative to baselines that started alike.
    "relative_accuracy": lambda o: o.after.accuracy - o.baseline,
    # Correlates with accuracy at less noise: the probability given to the true class.
    "soft_accuracy": lambda o: o.after.soft_accuracy,
    # Balance: a spread could be shrunk by making every head worse, a minimum cannot.
    "weakest_modality": lambda o: o.after.modality_accuracy.amin(1),
    # Difficulty: on rows that a reference model found hard before any selection.
    "hard_third": lambda o: o.after.hard_accuracy,
    # The paper's further ingredients: gain within the round, and balance of the AMCB weights (entropy, 0 to 1).
    "accuracy_gain": lambda o: o.after.accuracy - o.before.accuracy,
    "contribution_balance": lambda o: _normalised_entropy(o.weights),
}


@dataclass(frozen=True)
class RewardConfig(Section, prefix="reward."):
    """Weights of the reward terms (0 leaves one out)."""

    relative_accuracy: Annotated[float, Finite()] = 1.0
    soft_accuracy: Annotated[float, Finite()] = 0.0
    weakest_modality: Annotated[float, Finite()] = 0.3
    hard_third: Annotated[float, Finite()] = 0.2
    accuracy_gain: Annotated[float, Finite()] = 0.0
    contribution_balance: Annotated[float, Finite()] = 0.0
    # Share of the previous round's smoothed reward that is kept (RL-MBA's moving average).
    smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    baselines: tuple[str, ...] = ("badge", "margin")  # paired strategies for relative_accuracy

    def __post_init__(self) -> None:
        super().__post_init__()
        if all(getattr(self, name) == 0 for name in TERMS):
            raise ConfigError(f"Every reward weight is 0; give one of {', '.join(TERMS)} a weight.")


def reward(outcome: Outcome, config: RewardConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum [E], and each term as it is (unweighted), [E] each, those of weight 0 included."""
    terms = {name: term(outcome) for name, term in TERMS.items()}
    return sum(getattr(config, name) * value for name, value in terms.items()), terms


def _normalised_entropy(weights: Tensor) -> Tensor:
    if weights.shape[1] == 1:
        return torch.ones_like(weights[:, 0])
    return torch.special.entr(weights).sum(1) / math.log(weights.shape[1])
