"""Candidate features that depend on the picks made so far in the round, recomputed at every pick.

They are functions of the observation alone and of the picks, never of the policy's weights: no gradient runs
through them, and a learner can replay them for picks that an environment runner made.

A feature is one class here: name, words for people, groups, and how it is computed. To add one of your own, see
`examples/batch_feature.py`: where a configuration names batch features, `module:Class` stands for one of yours.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from envs.registry import Registry
from policies.batch_features.base import BatchFeature, BatchView
from policies.batch_features.coverage import ClassShare, CoverageGain, UncertainCoverageGain
from policies.batch_features.distance import BatchDistance, CoresetDistance, GradientDistance
from policies.batch_features.fisher import FisherGain

__all__ = ["BATCH_FEATURES", "DEFAULT_BATCH_FEATURES", "BatchAware", "BatchFeature", "BatchView"]

_OURS = (
    GradientDistance,
    BatchDistance,
    CoresetDistance,
    ClassShare,
    FisherGain,
    CoverageGain,
    UncertainCoverageGain,
)
BATCH_FEATURES: Registry[type[BatchFeature]] = Registry(
    "batch feature",
    "subclass of policies.batch_features.BatchFeature",
    lambda found: isinstance(found, type) and issubclass(found, BatchFeature),
    {feature.name: feature for feature in _OURS},
)
DEFAULT_BATCH_FEATURES = tuple(feature.name for feature in BATCH_FEATURES.values() if feature.default)


class BatchAware:
    """Batch-aware features of B rows of K candidates.

    Args:
        observation: `envs.candidates.offer.Candidates.observation()`, batched.
        names: that BATCH_FEATURES can find, F of them; only these are computed.
    """

    def __init__(self, observation: dict[str, Tensor], names: Iterable[str] = BATCH_FEATURES):
        self._view = BatchView(observation)
        self._features = [self._view.part(BATCH_FEATURES.find(name)) for name in names]

    def current(self) -> Tensor:
        """Features for the next pick, [B, K, F]."""
        return torch.stack([feature.current() for feature in self._features], 2)

    def narrow(self, index: Tensor) -> None:
        """Go on with the candidates at index [B, k] alone; before the first pick."""
        self._view.narrow(index)

    def add(self, pick: Tensor) -> None:
        """Take note of one pick per row, [B]."""
        self._view.add(pick[:, None])

    def replay(self, picks: Tensor) -> Tensor:
        """The features in force at each of the picks [B, b], [B, b, K, F]; all picks at once."""
        earlier = picks[:, :-1]
        return torch.stack([feature.replay(earlier) for feature in self._features], 3)
