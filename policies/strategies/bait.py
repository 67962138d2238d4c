"""BAIT (Ash et al., NeurIPS 2021, "Gone Fishing") with the binary Fisher embedding of Huseljic et al. (2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.kmeanspp import BLOCK
from envs.round import Round

LAMBDA = 1.0


def bait(round_: Round, batch_size: int) -> Tensor:
    """The batch that minimises trace(M^-1 I(pool)), by 2b greedy additions and b greedy removals; picks [E, b].

    A sample's Fisher information is v v^T with v = sqrt(p (1 - p)) z, p its top probability (arXiv 2404.08981); I(pool)
    is the mean over the pool, labelled rows included. M starts at LAMBDA I + n / (n + b) times the mean over the n
    labelled rows and grows by b / (n + b) v v^T with every pick, the weights of the authors' code (arXiv 2106.09675).
    """
    points = fisher_embedding(round_)  # [E, D, P]
    labelled = torch.take_along_dim(points, round_.labelled[:, None], 2)
    total = labelled.shape[2] + batch_size
    identity = torch.eye(points.shape[1], dtype=points.dtype, device=points.device)
    inverse = torch.linalg.inv(LAMBDA * identity + labelled @ labelled.mT / total)
    pool = points @ points.mT / points.shape[2]
    points *= (batch_size / total) ** 0.5
    design = Design(points, inverse, inverse @ pool @ inverse)
    with round_.stopwatch.measure("picking"):
        open_ = round_.available.clone()
        picks = []
        for _ in range(min(2 * batch_size, int(open_.sum(1).min()))):
            pick = design.gain(1.0).masked_fill(~open_, -torch.inf).argmax(1)
            picks.append(pick)
            open_.scatter_(1, pick[:, None], False)
            design.update(pick, 1.0)
        chosen = torch.stack(picks, 1)
        design = Design(torch.take_along_dim(points, chosen[:, None], 2), design.inverse, design.sandwich)
        kept = torch.ones_like(chosen, dtype=torch.bool)
        for _ in range(chosen.shape[1] - batch_size):
            drop = design.gain(-1.0).masked_fill(~kept, torch.inf).argmin(1)
            kept.scatter_(1, drop[:, None], False)
            design.update(drop, -1.0)
        return chosen[kept].view(-1, batch_size)


def fisher_embedding(round_: Round) -> Tensor:
    """v = sqrt(p (1 - p)) z in double precision, for thousands of updates add up; [E, M H, P]."""
    top = round_.outputs.probabilities.amax(1, keepdim=True).double()
    return (top * (1.0 - top)).clamp_min_(0.0).sqrt_() * round_.outputs.embedding()


class Design:
    """The effect on trace(M^-1 F) of adding or removing each of R samples, kept up to date by rank-one updates.

    A step costs O(R D + D^2) per episode: neither M^-1 v nor anything else of size D is recomputed for every sample.

    Args:
        points: v of each sample, [E, D, R].
        inverse: M^-1, [E, D, D]; updated in place.
        sandwich: M^-1 F M^-1, [E, D, D]; updated in place.
    """

    def __init__(self, points: Tensor, inverse: Tensor, sandwich: Tensor):
        self.points, self.inverse, self.sandwich = points, inverse, sandwich
        leverage, effect = [], []
        for some in points.split(max(BLOCK // points.shape[1], 1), dim=2):
            leverage.append((some * (inverse @ some)).sum(1))
            effect.append((some * (sandwich @ some)).sum(1))
        self.leverage = torch.cat(leverage, 1)  # [E, R] v^T M^-1 v
        self.effect = torch.cat(effect, 1)  # [E, R] v^T M^-1 F M^-1 v

    def gain(self, sign: float) -> Tensor:
        """The fall of the trace when each sample is added (sign 1), or its rise when it is removed (-1), [E, R]."""
        return self.effect / (1.0 + sign * self.leverage).clamp_min(1e-12)

    def update(self, index: Tensor, sign: float) -> None:
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
