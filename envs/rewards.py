"""Reward terms: what a round of labels was worth. Each term is a function; their weighted sum is the reward.

To add a term of your own, see `examples/reward_term.py`; `RewardConfig(extra={"module:function": 0.5})` weighs it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Annotated

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from envs.errors import ConfigError
from envs.fields import Finite, Section
from envs.registry import Registry
from envs.simulation import Measurements


@dataclass(frozen=True)
class Outcome:
    """What one round of labels changed: measurements before and after it."""

    before: Measurements
    after: Measurements
    weights: Tensor  # [E, M] AMCB weights after the round
    baseline: Tensor  # [E] accuracy of the paired baselines after the round; 0 where none is known


Term = Callable[[Outcome], Tensor]  # gives [E]

_OURS: dict[str, Term] = {
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
TERMS: Registry[Term] = Registry("reward term", "function of an outcome", callable, _OURS)


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
    extra: Mapping[str, float] = field(default_factory=dict, hash=False)  # weights of terms of your own

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, weight in self.extra.items():
            if name in _OURS:
                raise ConfigError(f"reward.extra names {name!r}, which has a weight of its own: reward.{name}.")
            TERMS.find(name)
            if isinstance(weight, bool) or not isinstance(weight, Real) or not math.isfinite(weight):
                raise ConfigError(f"reward.extra gives {name!r} the weight {weight!r}; it must be a finite number.")
        if not any(self.weight(name) for name in [*TERMS, *self.extra]):
            raise ConfigError(f"Every reward weight is 0; give one of {', '.join(TERMS)} a weight.")

    def weight(self, name: str) -> float:
        """The weight of a term."""
        return getattr(self, name) if name in _OURS else self.extra.get(name, 0.0)


def reward(outcome: Outcome, config: RewardConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum [E], and each term as it is (unweighted), [E] each, those of weight 0 included."""
    terms = {name: TERMS.find(name)(outcome) for name in [*TERMS, *(n for n in config.extra if n not in TERMS)]}
    return sum(config.weight(name) * value for name, value in terms.items()), terms


def _normalised_entropy(weights: Tensor) -> Tensor:
    if weights.shape[1] == 1:
        return torch.ones_like(weights[:, 0])
    return torch.special.entr(weights).sum(1) / math.log(weights.shape[1])
