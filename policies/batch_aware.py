"""Candidate features that depend on the picks made so far in the round, recomputed at every pick.

They are functions of the observation alone and of the picks, never of the policy's weights: no gradient runs
through them, and a learner can replay them for picks that an environment runner made.
"""

from __future__ import annotations

import torch
from torch import Tensor

BATCH_FEATURES = (
    "gradient_distance",  # log of the squared gradient-embedding distance to the picks (this is BADGE)
    "batch_distance",  # hidden-feature distance to the picks; 0 before the first
    "coreset_distance",  # hidden-feature distance to the nearest labelled or picked sample (this is CoreSet)
    "class_share",  # share of the picks that are predicted to be of the same class
)
LOG_LIMITS = (-8.0, 4.0)


class BatchAware:
    """Batch-aware features of B rows of K candidates.

    Args:
        observation: `envs.candidates.Candidates.observation()`, batched.
    """

    def __init__(self, observation: dict[str, Tensor]):
        self.valid = observation["valid"] > 0  # [B, K]
        self._gradient = observation["gradient"].float()  # [B, K, G]
        self._hidden = observation["hidden"].float()  # [B, K, H]
        self._labelled = observation["labelled_distance"].float()
        self._predicted = observation["predicted"].long()
        self._norms = self._gradient.square().sum(2)
        self._hidden_norms = self._hidden.square().sum(2)
        count = self.valid.sum(1, keepdim=True).clamp_min(1)
        self._mean_norm = ((self._norms * self.valid).sum(1, keepdim=True) / count).clamp_min(1e-20)
        self._nearest_gradient = self._norms
        self._nearest_hidden: Tensor | None = None
        self._same = torch.zeros_like(self._labelled)
        self._picked = 0

    def current(self) -> Tensor:
        """Features for the next pick, [B, K, 4]."""
        batch = torch.zeros_like(self._labelled) if self._nearest_hidden is None else self._nearest_hidden.sqrt()
        coreset = self._labelled if self._nearest_hidden is None else torch.minimum(self._labelled, batch)
        share = self._same / max(self._picked, 1)
        return torch.stack([self._log_ratio(self._nearest_gradient), batch, coreset, share], 2)

    def add(self, pick: Tensor) -> None:
        """Take note of one pick per row, [B]."""
        at = pick[:, None]
        gradient = _squared_distance(self._gradient, self._norms, at)[:, 0]
        hidden = _squared_distance(self._hidden, self._hidden_norms, at)[:, 0]
        first = self._nearest_hidden is None
        self._nearest_gradient = gradient if first else torch.minimum(self._nearest_gradient, gradient)
        self._nearest_hidden = hidden if first else torch.minimum(self._nearest_hidden, hidden)
        self._same = self._same + (self._predicted == self._predicted.gather(1, at))
        self._picked += 1

    def replay(self, picks: Tensor) -> Tensor:
        """The features in force at each of the picks [B, b], [B, b, K, 4]; all picks at once."""
        earlier = picks[:, :-1]
        log_d = self._log_ratio(self._norms)[:, None]
        batch = torch.zeros_like(self._labelled)[:, None]
        coreset = self._labelled[:, None]
        share = torch.zeros_like(self._labelled)[:, None]
        if earlier.shape[1]:
            gradient = _squared_distance(self._gradient, self._norms, earlier).cummin(1).values
            hidden = _squared_distance(self._hidden, self._hidden_norms, earlier).cummin(1).values.sqrt()
            same = self._predicted[:, None] == self._predicted.gather(1, earlier)[..., None]
            counts = torch.arange(1, earlier.shape[1] + 1, device=picks.device)[:, None]
            log_d = torch.cat([log_d, self._log_ratio(gradient)], 1)
            batch = torch.cat([batch, hidden], 1)
            coreset = torch.cat([coreset, torch.minimum(coreset, hidden)], 1)
            share = torch.cat([share, same.float().cumsum(1) / counts], 1)
        return torch.stack([log_d, batch, coreset, share], 3)

    def _log_ratio(self, squared: Tensor) -> Tensor:
        mean = self._mean_norm if squared.dim() == 2 else self._mean_norm[:, None]
        return (squared / mean + 1e-4).log().clamp(*LOG_LIMITS)


def _squared_distance(points: Tensor, norms: Tensor, index: Tensor) -> Tensor:
    """Squared distance of every point [B, K, D] to the points at index [B, b], [B, b, K]."""
    chosen = torch.take_along_dim(points, index[..., None], 1)
    product = torch.bmm(chosen, points.mT)
    return (norms.gather(1, index)[..., None] + norms[:, None] - 2.0 * product).clamp_min_(0.0)
