"""How far a candidate lies from the picks: in gradient embeddings (BADGE), in hidden features (CoreSet)."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.candidates import FAR, log_ratio
from policies.batch_features.base import BatchFeature


class GradientDistance(BatchFeature):
    """Log of the squared gradient-embedding distance to the picks (this is BADGE)."""

    name = "gradient_distance"
    words = ("unlike the others in this batch", "like the others in this batch")
    reads = ()

    def start(self) -> None:
        self._mean_norm = self.view.mean(self.view.gradient.norms)
        self._nearest: Tensor | None = None

    def narrow(self, index: Tensor) -> None:
        pass  # the mean stays that of all candidates

    def add(self, pick: Tensor) -> None:
        squared = self.view.gradient.squared_distance(pick)[:, 0]
        self._nearest = squared if self._nearest is None else torch.minimum(self._nearest, squared)

    def current(self) -> Tensor:
        return log_ratio(self.view.gradient.norms if self._nearest is None else self._nearest, self._mean_norm)

    def replay(self, earlier: Tensor) -> Tensor:
        nearest = _running_minimum_(self.view.gradient.squared_distance(earlier))
        first = log_ratio(self.view.gradient.norms, self._mean_norm)
        return torch.cat([first[:, None], log_ratio(nearest, self._mean_norm[:, None])], 1)


class BatchDistance(BatchFeature):
    """Hidden-feature distance to the picks; 0 before the first."""

    name = "batch_distance"
    words = GradientDistance.words
    reads = ()

    def start(self) -> None:
        self._nearest: Tensor | None = None
        self._distance = torch.zeros_like(self.view.labelled)
        self._replayed: tuple[Tensor, Tensor] | None = None

    def add(self, pick: Tensor) -> None:
        squared = self.view.hidden.squared_distance(pick)[:, 0]
        self._nearest = squared if self._nearest is None else torch.minimum(self._nearest, squared)
        self._distance = self._nearest.sqrt()

    def current(self) -> Tensor:
        return self._distance

    def replay(self, earlier: Tensor) -> Tensor:
        if self._replayed is None or self._replayed[0] is not earlier:  # coreset_distance asks as well
            nearest = _running_minimum_(self.view.hidden.squared_distance(earlier)).sqrt_()
            first = torch.zeros_like(self.view.labelled)
            self._replayed = earlier, torch.cat([first[:, None], nearest], 1)
        return self._replayed[1]


class CoresetDistance(BatchFeature):
    """Hidden-feature distance to the nearest labelled or picked sample (this is CoreSet)."""

    name = "coreset_distance"
    words = FAR
    reads = ()

    def start(self) -> None:
        self._batch = self.view.part(BatchDistance)
        self._nearest = self.view.labelled

    def add(self, pick: Tensor) -> None:
        self._nearest = torch.minimum(self.view.labelled, self._batch.current())

    def current(self) -> Tensor:
        return self._nearest

    def replay(self, earlier: Tensor) -> Tensor:
        labelled = self.view.labelled[:, None]
        return torch.cat([labelled, torch.minimum(labelled, self._batch.replay(earlier)[:, 1:])], 1)


def _running_minimum_(values: Tensor) -> Tensor:
    """Replace values [B, b, K] by the smallest so far along b; several times as fast as cummin, which keeps indices."""
    for j in range(1, values.shape[1]):
        torch.minimum(values[:, j], values[:, j - 1], out=values[:, j])
    return values
