"""How much a candidate's label would tell the model, given the labels that it has and the picks (this is BAIT)."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.candidates import log_ratio
from policies.batch_features.base import BatchFeature
from policies.fisher_design import Design


class FisherGain(BatchFeature):
    """Log of the fall of the expected error when the candidate is labelled, next to the mean before the first pick.

    The fall is that of trace(M^-1 F): F is the candidates' Fisher information, M that of the labelled samples and the
    picks, in the whitened directions of `envs.candidates.View.fisher`. It is BAIT's objective (arXiv 2106.09675) on a
    sample of the pool; its spread grows by itself as the model gets surer.
    """

    name = "fisher_gain"
    words = ("its label would tell the model much", "its label would tell the model little")
    default = False
    reads = ("fisher",)

    def start(self) -> None:
        points = self.view.fisher.mT.contiguous()  # [B, D, K]
        information = points @ points.mT
        information /= information.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-20)[:, None, None]
        identity = torch.eye(points.shape[1], device=points.device).repeat(len(points), 1, 1)
        self._design = Design(points, identity, information, points.square().sum(1))
        self._mean = self.view.mean(self._design.gain(1.0))

    def narrow(self, index: Tensor) -> None:
        self._design = self._design.at(index)

    def add(self, pick: Tensor) -> None:
        self._design.update(pick[:, 0], 1.0)

    def current(self) -> Tensor:
        return self._log_gain(self._design.gain(1.0))

    def replay(self, earlier: Tensor) -> Tensor:
        # What a pick changes depends on the picks alone, so they go first, and then all candidates at once.
        among = self._design.at(earlier)
        steps = [among.update(torch.full_like(earlier[:, 0], j), 1.0) for j in range(earlier.shape[1])]
        if not steps:
            return self.current()[:, None]
        sides = torch.cat([step.sides for step in steps], 2)  # [B, D, 2 (b - 1)]
        u, w = torch.bmm(sides.mT, self._design.points).unflatten(1, (-1, 2)).unbind(2)  # [B, b - 1, K]
        factor = torch.stack([step.factor for step in steps], 1)
        effect = torch.stack([step.effect for step in steps], 1)
        leverages = self._design.leverage[:, None] - (factor * u.square()).cumsum(1)
        changes = factor.square() * effect * u.square() - 2.0 * factor * u * w
        effects = self._design.effect[:, None] + changes.cumsum(1)
        later = self._log_gain(effects / (1.0 + leverages).clamp_min(1e-12), self._mean[:, None])
        return torch.cat([self.current()[:, None], later], 1)

    def _log_gain(self, gain: Tensor, mean: Tensor | None = None) -> Tensor:
        return log_ratio(gain.clamp_min(0.0), self._mean if mean is None else mean)
