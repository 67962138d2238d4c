"""Which samples tell a linear head most, by Fisher information: BAIT's objective under rank-one updates.

Ash et al., NeurIPS 2021, "Gone Fishing" (arXiv 2106.09675).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.kmeanspp import BLOCK


@dataclass(frozen=True)
class Step:
    """What the addition or removal of one sample of each of E episodes changes."""

    sides: Tensor  # [E, D, 2]: M^-1 v and M^-1 F M^-1 v of the sample, before the step
    factor: Tensor  # [E, 1]: +-1 / (1 +- its leverage)
    effect: Tensor  # [E, 1]: v^T M^-1 F M^-1 v of the sample, before the step


class Design:
    """The effect on trace(M^-1 F) of adding or removing each of R samples, kept up to date by rank-one updates.

    A step costs O(R D + D^2) per episode: neither M^-1 v nor anything else of size D is recomputed for every sample.

    Args:
        points: v of each sample, [E, D, R].
        inverse: M^-1, [E, D, D]; updated in place.
        sandwich: M^-1 F M^-1, [E, D, D]; updated in place.
        leverage: v^T M^-1 v of each sample, [E, R], where it is known.
    """

    def __init__(self, points: Tensor, inverse: Tensor, sandwich: Tensor, leverage: Tensor | None = None):
        self.points, self.inverse, self.sandwich = points, inverse, sandwich
        self.leverage = _products(inverse, points) if leverage is None else leverage  # [E, R] v^T M^-1 v
        self.effect = _products(sandwich, points)  # [E, R] v^T M^-1 F M^-1 v

    def gain(self, sign: float) -> Tensor:
        """The fall of the trace when each sample is added (sign 1), or its rise when it is removed (-1), [E, R]."""
        return self.effect / (1.0 + sign * self.leverage).clamp_min(1e-12)

    def at(self, index: Tensor) -> Design:
        """The design among the samples at index [E, k] alone; nothing is shared."""
        part = copy.copy(self)
        part.points = self.points.gather(2, index[:, None].expand(-1, self.points.shape[1], -1))
        part.leverage, part.effect = self.leverage.gather(1, index), self.effect.gather(1, index)
        part.inverse, part.sandwich = self.inverse.clone(), self.sandwich.clone()
        return part

    def update(self, index: Tensor, sign: float) -> Step:
        """Add (sign 1) or remove (-1) sample index [E], by Sherman and Morrison's formula."""
        at = index[:, None]
        v = torch.take_along_dim(self.points, at[:, None], 2)  # [E, D, 1]
        u, w = self.inverse @ v, self.sandwich @ v
        factor = sign / (1.0 + sign * self.leverage.gather(1, at)).clamp_min(1e-12)  # [E, 1]
        sides = torch.cat([u, w], 2)  # [E, D, 2]
        a, b = torch.bmm(sides.mT, self.points).unbind(1)  # [E, R] each
        effect = self.effect.gather(1, at)
        self.leverage = self.leverage - factor * a.square()
        self.effect = self.effect - 2.0 * factor * a * b + factor.square() * effect * a.square()
        # M^-1 loses c u u^T; the sandwich gains (u w) K (u w)^T. In place: at this size fresh memory costs the most.
        self.inverse.baddbmm_(u * -factor[..., None], u.mT)
        diagonal = factor.square() * effect
        inner = torch.stack([torch.cat([diagonal, -factor], 1), torch.cat([-factor, torch.zeros_like(factor)], 1)], 1)
        self.sandwich.baddbmm_(sides @ inner, sides.mT)
        return Step(sides, factor, effect)


def _products(matrix: Tensor, points: Tensor) -> Tensor:
    """v^T A v of every point, [E, R]."""
    blocks = points.split(max(BLOCK // points.shape[1], 1), dim=2)
    return torch.cat([(some * (matrix @ some)).sum(1) for some in blocks], 1)
