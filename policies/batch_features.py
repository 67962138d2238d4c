"""Candidate features that depend on the picks made so far in the round, recomputed at every pick.

They are functions of the observation alone and of the picks, never of the policy's weights: no gradient runs
through them, and a learner can replay them for picks that an environment runner made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

BATCH_FEATURES = (
    "gradient_distance",  # log of the squared gradient-embedding distance to the picks (this is BADGE)
    "batch_distance",  # hidden-feature distance to the picks; 0 before the first
    "coreset_distance",  # hidden-feature distance to the nearest labelled or picked sample (this is CoreSet)
    "class_share",  # share of the picks that are predicted to be of the same class
    "coverage_gain",  # log of what it adds to the kernel coverage of the candidates (this is MaxHerding)
)
DEFAULT_BATCH_FEATURES = ("gradient_distance", "batch_distance", "coreset_distance", "class_share")
LOG_LIMITS = (-8.0, 4.0)
BANDWIDTH = 0.2  # of the coverage kernel, in mean squared distances between candidates
REFERENCES = 512  # candidates at most whose coverage counts


class BatchAware:
    """Batch-aware features of B rows of K candidates.

    Args:
        observation: `envs.candidates.offer.Candidates.observation()`, batched.
        names: of BATCH_FEATURES, F of them; only these are computed.
    """

    def __init__(self, observation: dict[str, Tensor], names: Sequence[str] = BATCH_FEATURES):
        self.names = tuple(names)
        self.valid = observation["valid"] > 0  # [B, K]
        self._gradient = observation["gradient"].float()  # [B, K, G]
        self._hidden = observation["hidden"].float()  # [B, K, H]
        self._labelled = observation["labelled_distance"].float()
        self._predicted = observation["predicted"].long()
        self._norms = self._gradient.square().sum(2)
        self._hidden_norms = self._hidden.square().sum(2)
        self._mean_norm = self._mean(self._norms).clamp_min(1e-20)
        self._nearest_gradient = self._norms
        self._nearest_hidden: Tensor | None = None
        self._same = torch.zeros_like(self._labelled)
        self._picked = 0
        if "coverage_gain" in self.names:
            self._prepare_coverage()

    def current(self) -> Tensor:
        """Features for the next pick, [B, K, F]."""
        batch = torch.zeros_like(self._labelled) if self._nearest_hidden is None else self._nearest_hidden.sqrt()
        values = {
            "gradient_distance": lambda: self._log_ratio(self._nearest_gradient),
            "batch_distance": lambda: batch,
            "coreset_distance": lambda: self._labelled if not self._picked else torch.minimum(self._labelled, batch),
            "class_share": lambda: self._same / max(self._picked, 1),
            "coverage_gain": lambda: self._coverage_gain(self._covered),
        }
        return torch.stack([values[name]() for name in self.names], 2)

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
        if "coverage_gain" in self.names:
            self._covered = torch.maximum(self._covered, self._kernel_at(at)[:, 0])

    def replay(self, picks: Tensor) -> Tensor:
        """The features in force at each of the picks [B, b], [B, b, K, F]; all picks at once."""
        earlier = picks[:, :-1]
        batch_distance = cache(lambda: self._replay_batch_distance(earlier))
        values = {
            "gradient_distance": lambda: self._replay_gradient_distance(earlier),
            "batch_distance": batch_distance,
            "coreset_distance": lambda: self._replay_coreset_distance(batch_distance()),
            "class_share": lambda: self._replay_class_share(earlier),
            "coverage_gain": lambda: self._replay_coverage_gain(earlier),
        }
        return torch.stack([values[name]() for name in self.names], 3)

    def _replay_gradient_distance(self, earlier: Tensor) -> Tensor:
        nearest = _running_minimum_(_squared_distance(self._gradient, self._norms, earlier))
        return torch.cat([self._log_ratio(self._norms)[:, None], self._log_ratio(nearest)], 1)

    def _replay_batch_distance(self, earlier: Tensor) -> Tensor:
        nearest = _running_minimum_(_squared_distance(self._hidden, self._hidden_norms, earlier)).sqrt_()
        return torch.cat([torch.zeros_like(self._labelled)[:, None], nearest], 1)

    def _replay_coreset_distance(self, batch_distance: Tensor) -> Tensor:
        labelled = self._labelled[:, None]
        return torch.cat([labelled, torch.minimum(labelled, batch_distance[:, 1:])], 1)

    def _replay_class_share(self, earlier: Tensor) -> Tensor:
        same = self._predicted[:, None] == self._predicted.gather(1, earlier)[..., None]
        counts = torch.arange(1, earlier.shape[1] + 1, device=earlier.device)[:, None]
        return torch.cat([torch.zeros_like(self._labelled)[:, None], same.float().cumsum(1) / counts], 1)

    def _replay_coverage_gain(self, earlier: Tensor) -> Tensor:
        covered = torch.cat([self._covered[:, None], self._kernel_at(earlier)], 1).cummax(1).values
        # One pick at a time: b x K x R numbers at once would be many.
        return torch.stack([self._coverage_gain(covered[:, j]) for j in range(covered.shape[1])], 1)

    def _prepare_coverage(self) -> None:
        """Kernel between candidates and references, and how far the labelled samples cover the references."""
        rows, slots = self.valid.shape
        count = min(REFERENCES, slots)
        at = torch.arange(count, device=self.valid.device) * slots // count  # spread out: slots follow the pool's order
        references = at.expand(rows, -1)
        squared = _squared_distance(self._hidden, self._hidden_norms, references)  # [B, R, K]
        counted = self.valid[:, at]
        pairs = counted[:, :, None] & self.valid[:, None]
        scale = (squared * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)
        width = (BANDWIDTH * scale).clamp_min(1e-12)[:, None]
        self._kernel = (-squared / width[:, None]).exp_()
        covered = (-self._labelled[:, at].square() / width).exp()
        self._covered = covered.masked_fill(~counted, 1.0)  # at empty slots nothing is gained
        self._first_gain = self._mean(self._gain(self._covered)).clamp_min(1e-20)

    def _kernel_at(self, picks: Tensor) -> Tensor:
        """Kernel between picks [B, b] and the references, [B, b, R]."""
        return torch.take_along_dim(self._kernel, picks[:, None], 2).mT

    def _gain(self, covered: Tensor) -> Tensor:
        """What each candidate adds to the coverage [B, R], [B, K]."""
        return (self._kernel - covered[:, :, None]).clamp_min_(0.0).sum(1)

    def _coverage_gain(self, covered: Tensor) -> Tensor:
        return (self._gain(covered) / self._first_gain + 1e-4).log().clamp(*LOG_LIMITS)

    def _mean(self, values: Tensor) -> Tensor:
        """Mean over the valid candidates, [B, 1]."""
        return (values * self.valid).sum(1, keepdim=True) / self.valid.sum(1, keepdim=True).clamp_min(1)

    def _log_ratio(self, squared: Tensor) -> Tensor:
        mean = self._mean_norm if squared.dim() == 2 else self._mean_norm[:, None]
        return (squared / mean + 1e-4).log().clamp(*LOG_LIMITS)


def _squared_distance(points: Tensor, norms: Tensor, index: Tensor) -> Tensor:
    """Squared distance of every point [B, K, D] to the points at index [B, b], [B, b, K]."""
    chosen = torch.take_along_dim(points, index[..., None], 1)
    product = torch.bmm(chosen, points.mT)
    return (norms.gather(1, index)[..., None] + norms[:, None] - 2.0 * product).clamp_min_(0.0)


def _running_minimum_(values: Tensor) -> Tensor:
    """Replace values [B, b, K] by the smallest so far along b; several times as fast as cummin, which keeps indices."""
    for j in range(1, values.shape[1]):
        torch.minimum(values[:, j], values[:, j - 1], out=values[:, j])
    return values
