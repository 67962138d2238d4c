"""What a candidate adds to the batch for others: its class, and the coverage of samples like it (MaxHerding)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from envs.candidates import log_ratio
from policies.batch_features.base import BatchFeature

REFERENCES = 512  # candidates at most whose coverage counts


class ClassShare(BatchFeature):
    """Share of the picks that are predicted to be of the same class."""

    name = "class_share"
    words = ("predicted class as of others in this batch", "predicted class is rare in this batch")
    groups = ("batch", "classes")

    def start(self) -> None:
        self._same = torch.zeros_like(self.view.labelled)
        self._picked = 0

    def add(self, pick: Tensor) -> None:
        predicted = self.view.predicted
        self._same = self._same + (predicted == predicted.gather(1, pick))
        self._picked += 1

    def current(self) -> Tensor:
        return self._same / max(self._picked, 1)

    def replay(self, earlier: Tensor) -> Tensor:
        predicted = self.view.predicted
        same = predicted[:, None] == predicted.gather(1, earlier)[..., None]
        counts = torch.arange(1, earlier.shape[1] + 1, device=earlier.device)[:, None]
        return torch.cat([torch.zeros_like(self.view.labelled)[:, None], same.float().cumsum(1) / counts], 1)


class CoverageGain(BatchFeature):
    """Log of what the candidate adds to the coverage of the candidates' input features (this is MaxHerding).

    The coverage of a sample is its largest kernel exp(-d^2) to a labelled or picked one, d between input features of
    length 1; the gain is summed over candidates spread over the pool (Bae et al. 2024, arXiv 2407.12212).
    """

    name = "coverage_gain"
    words = ("stands for many samples unlike the labelled ones", "stands for few samples unlike the labelled ones")
    groups: ClassVar[tuple[str, ...]] = ("batch", "coverage")
    default = False

    def start(self) -> None:
        """Kernel between candidates and references, and how far the labelled samples cover the references."""
        valid = self.view.valid
        rows, slots = valid.shape
        count = min(REFERENCES, slots)
        at = torch.arange(count, device=valid.device) * slots // count  # spread out: slots follow the pool's order
        self._kernel = self.view.input.squared_distance(at.expand(rows, -1)).neg_().exp_()  # [B, R, K]
        self._covered = self.view.input_distance[:, at].square().neg_().exp_()
        self._added: Tensor | None = None
        self.counted = valid[:, at].float()  # at empty slots nothing is gained
        self.unsure = self.view.uncertainty[:, at] * self.counted
        self._first_gain = self.view.mean(self.gain(self.counted))

    def narrow(self, index: Tensor) -> None:
        self._kernel = self._kernel.gather(
            2, index[:, None].expand(-1, self._kernel.shape[1], -1)
        )  # every reference stays
        self._added = None

    def add(self, pick: Tensor) -> None:
        self._covered = torch.maximum(self._covered, self._kernel_at(pick)[:, 0])
        self._added = None

    def gain(self, weights: Tensor) -> Tensor:
        """What each candidate adds to the coverage of the references, which count by weights [B, R]; [B, K]."""
        if self._added is None:  # another feature asks as well
            self._added = self._beyond(self._covered)
        return torch.bmm(weights[:, None], self._added)[:, 0]

    def current(self) -> Tensor:
        return log_ratio(self.gain(self.counted), self._first_gain)

    def replay(self, earlier: Tensor) -> Tensor:
        return log_ratio(self.replayed(self.counted, earlier), self._first_gain[:, None])

    def replayed(self, weights: Tensor, earlier: Tensor) -> Tensor:
        """`gain` at each of b picks, [B, b, K], given those before the last [B, b - 1]."""
        covered = torch.cat([self._covered[:, None], self._kernel_at(earlier)], 1).cummax(1).values
        # One pick at a time: b x K x R numbers at once would be many.
        gains = [torch.bmm(weights[:, None], self._beyond(some))[:, 0] for some in covered.unbind(1)]
        return torch.stack(gains, 1)

    def _kernel_at(self, picks: Tensor) -> Tensor:
        """Kernel between picks [B, b] and the references, [B, b, R]."""
        return self._kernel.gather(2, picks[:, None].expand(-1, self._kernel.shape[1], -1)).mT

    def _beyond(self, covered: Tensor) -> Tensor:
        """By how much each candidate covers each reference better than covered [B, R], [B, R, K]."""
        return (self._kernel - covered[:, :, None]).clamp_min_(0.0)


class UncertainCoverageGain(BatchFeature):
    """The same, each sample counting by how uncertain the model is of it (as in Uncertainty Herding).

    Bae et al. 2025 (arXiv 2412.20644), without their temperature and radius, which follow the number of labels.
    """

    name = "uncertain_coverage_gain"
    words = (
        "stands for many samples that the model is unsure of",
        "stands for few that the model is unsure of",
    )
    groups = ("batch", "coverage", "uncertainty")
    default = False

    def start(self) -> None:
        self._coverage = self.view.part(CoverageGain)
        self._first_gain = self.view.mean(self._coverage.gain(self._coverage.unsure))

    def narrow(self, index: Tensor) -> None:
        pass  # the mean stays that of all candidates

    def add(self, pick: Tensor) -> None:
        pass  # the coverage takes note of it

    def current(self) -> Tensor:
        return log_ratio(self._coverage.gain(self._coverage.unsure), self._first_gain)

    def replay(self, earlier: Tensor) -> Tensor:
        return log_ratio(self._coverage.replayed(self._coverage.unsure, earlier), self._first_gain[:, None])
