"""D^2 sampling (k-means++ seeding) over rows that are given as factors and never written out.

A row is g = sum over factors of a (x) z, so <g_i, g_j> = sum (a_i . a_j)(z_i . z_j): BADGE has one factor,
a strategy with one gradient embedding per modality has M, plain vectors have a = 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Factor = tuple[Tensor, Tensor]  # a [E, A, R], z [E, Z, R]


def squared_norms(factors: Sequence[Factor]) -> Tensor:
    """||g||^2 of every row, [E, R]."""
    return sum(a.square().sum(1) * z.square().sum(1) for a, z in factors)


def inner_products(factors: Sequence[Factor], index: Tensor) -> Tensor:
    """<g_r, g_index> for every row r, [E, R]; index [E]."""
    total = 0.0
    for a, z in factors:
        at = index[:, None, None]
        a_i = torch.take_along_dim(a, at, 2)  # [E, A, 1]
        z_i = torch.take_along_dim(z, at, 2)
        total = total + torch.bmm(a_i.mT, a)[:, 0] * torch.bmm(z_i.mT, z)[:, 0]
    return total


def draw_proportional(weights: Tensor, uniforms: Tensor) -> Tensor:
    """One index per episode, drawn proportionally to weights [E, R] >= 0 by uniforms [E] in [0, 1).

    At least one weight of each episode must be positive; an index of weight 0 is never drawn.
    """
    cumulative = weights.double().cumsum(1)
    target = uniforms.double() * cumulative[:, -1]
    index = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    index = index.clamp_max(weights.shape[1] - 1)
    # Rounding, and a parallel scan all the more, may land on a weight of 0.
    landed = weights.gather(1, index[:, None])[:, 0] > 0
    return torch.where(landed, index, weights.argmax(1))


def d_squared_sampling(
    factors: Sequence[Factor],
    available: Tensor,
    uniforms: Tensor,
    first: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pick b rows, each with probability proportional to the squared distance to the nearest pick so far.

    Args:
        factors: rows as factors.
        available: bool [E, R]; at least b True in each episode.
        uniforms: [E, b] in [0, 1), the randomness of the draws.
        first: [E] the first pick; without it, drawn uniformly.

    Returns:
        picks [E, b] and the squared distance of every row to its nearest pick, [E, R].
    """
    norms = squared_norms(factors)
    nearest = torch.full_like(norms, torch.inf)
    open_ = available.clone()
    picks = []
    for j in range(uniforms.shape[1]):
        if j > 0:
            weights = nearest * open_
        elif first is not None:
            weights = None
        else:
            weights = open_.to(norms.dtype)
        if weights is None:
            pick = first
        else:
            # Only duplicates of picks are left: any open row is as good as another.
            empty = weights.sum(1, keepdim=True) <= 0
            pick = draw_proportional(torch.where(empty, open_.to(norms.dtype), weights), uniforms[:, j])
        picks.append(pick)
        open_.scatter_(1, pick[:, None], False)
        distance = norms + norms.gather(1, pick[:, None]) - 2.0 * inner_products(factors, pick)
        nearest = torch.minimum(nearest, distance.clamp_min_(0.0))
    return torch.stack(picks, 1), nearest
