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
    reads = ()

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
    reads = ("input", "input_distance", "uncertainty")

    def start(self) -> None:
        """Kernel between candidates and references, and how far the labelled samples cover the references."""
        valid = self.view.valid
        rows, slots = valid.shape
        count = min(REFERENCES, slots)
        at = torch.arange(count, device=valid.device) * slots // count  # spread out: slots follow the pool's order
        self._kernel = self.view.input.squared_distance(at.expand(rows, -1)).neg_().exp_()  # [B, R, K]
        self._covered = self.view.input_distance[:, at].square().neg_().exp_()
        counted = valid[:, at].float()  # at empty slots nothing is gained
        self._weights = torch.stack([counted, self.view.uncertainty[:, at] * counted], 1)  # [B, 2, R]
        self._gains: Tensor | None = None
        self._replayed: tuple[Tensor, Tensor] | None = None
        self._first = [self.view.mean(gain) for gain in self._gains_now().unbind(1)]

    def narrow(self, index: Tensor) -> None:
        self._kernel = self._kernel.gather(2, index[:, None].expand(-1, self._kernel.shape[1], -1))  # all references
        self._gains = None

    def add(self, pick: Tensor) -> None:
        self._covered = torch.maximum(self._covered, self._kernel_at(pick)[:, 0])
        self._gains = None

    def current(self) -> Tensor:
        return self.current_by(0)

    def current_by(self, kind: int) -> Tensor:
        """Values for the next pick, [B, K], references counting alike (0) or by their uncertainty (1)."""
        return log_ratio(self._gains_now()[:, kind], self._first[kind])

    def replay(self, earlier: Tensor) -> Tensor:
        return self.replay_by(0, earlier)

    def replay_by(self, kind: int, earlier: Tensor) -> Tensor:
        """Values at each of b picks, [B, b, K], as in `current_by`, given those before the last [B, b - 1]."""
        if self._replayed is None or self._replayed[0] is not earlier:  # both kinds are asked for
            covered = torch.cat([self._covered[:, None], self._kernel_at(earlier)], 1).cummax(1).values
            # One pick at a time: b x K x R numbers at once would be many.
            self._replayed = earlier, torch.stack([self._gains_at(some) for some in covered.unbind(1)], 2)
        return log_ratio(self._replayed[1][:, kind], self._first[kind][:, None])

    def _gains_now(self) -> Tensor:
        if self._gains is None:  # both kinds are asked for
            self._gains = self._gains_at(self._covered)
        return self._gains

    def _gains_at(self, covered: Tensor) -> Tensor:
        """What each candidate adds where the references are covered so far [B, R], by both weights, [B, 2, K]."""
        return torch.bmm(self._weights, (self._kernel - covered[:, :, None]).clamp_min_(0.0))

    def _kernel_at(self, picks: Tensor) -> Tensor:
        """Kernel between picks [B, b] and the references, [B, b, R]."""
        return self._kernel.gather(2, picks[:, None].expand(-1, self._kernel.shape[1], -1)).mT


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
    reads = CoverageGain.reads

    def start(self) -> None:
        self._coverage = self.view.part(CoverageGain)

    def narrow(self, index: Tensor) -> None:
        """Nothing is held here."""

    def add(self, pick: Tensor) -> None:
        """The coverage takes note of it."""

    def current(self) -> Tensor:
        return self._coverage.current_by(1)

    def replay(self, earlier: Tensor) -> Tensor:
        return self._coverage.replay_by(1, earlier)
