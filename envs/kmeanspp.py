"""D^2 sampling (k-means++ seeding) over rows that are given as factors and never written out; k-means on plain rows.

A factorised row is g = sum over factors of a (x) z, so <g_i, g_j> = sum (a_i . a_j)(z_i . z_j): BADGE has one factor,
a strategy with one gradient embedding per modality has M, plain vectors have a = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

Factor = tuple[Tensor, Tensor]  # a [E, A, R], z [E, Z, R]

# Distances of one episode held at a time; a limit per episode, so that neighbours in a lockstep change nothing.
BLOCK = 2**24


def squared_norms(factors: Sequence[Factor]) -> Tensor:
    """||g||^2 of every row, [E, R]."""
    return reduce(torch.add, (a.square().sum(1) * z.square().sum(1) for a, z in factors))


def inner_products(factors: Sequence[Factor], index: Tensor) -> Tensor:
    """<g_r, g_index> for every row r, [E, R]; index [E]."""
    at = index[:, None, None]

    def products(x: Tensor) -> Tensor:
        return torch.bmm(torch.take_along_dim(x, at, 2).mT, x)[:, 0]

    return reduce(torch.add, (products(a) * products(z) for a, z in factors))


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
    mass: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pick b rows, each with probability proportional to its mass and its squared distance to the nearest pick so far.

    Args:
        factors: rows as factors.
        available: bool [E, R]; at least b True in each episode.
        uniforms: [E, b] in [0, 1), the randomness of the draws.
        first: [E] the first pick; without it, drawn proportionally to the mass.
        mass: [E, R] > 0; without it, all rows have the same.

    Returns:
        picks [E, b] and the squared distance of every row to its nearest pick, [E, R].
    """
    norms = squared_norms(factors)
    nearest = torch.full_like(norms, torch.inf)
    open_ = available.clone()
    mass = torch.ones_like(norms) if mass is None else mass
    picks = []
    for j in range(uniforms.shape[1]):
        if j == 0 and first is not None:
            pick = first
        else:
            free = mass * open_
            weights = nearest * free if j > 0 else free
            # Only duplicates of picks are left: any open row is as good as another.
            empty = weights.sum(1, keepdim=True) <= 0
            pick = draw_proportional(torch.where(empty, free, weights), uniforms[:, j])
        picks.append(pick)
        open_.scatter_(1, pick[:, None], False)
        distance = norms + norms.gather(1, pick[:, None]) - 2.0 * inner_products(factors, pick)
        nearest = torch.minimum(nearest, distance.clamp_min_(0.0))
    return torch.stack(picks, 1), nearest


def k_means(
    points: Tensor, available: Tensor, uniforms: Tensor, iterations: int, mass: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """k-means on the available points: D^2 sampling, then Lloyd iterations until nothing moves.

    Args:
        points: [E, H, P].
        available: bool [E, P]; at least k True in each episode.
        uniforms: [E, k] in [0, 1), the randomness of the seeding.
        iterations: of Lloyd, at most.
        mass: [E, P] > 0, how much each point counts in its centroid; without it, all count alike.

    Returns:
        centroids [E, H, k]; the squared distance of every point, available or not, to its nearest centroid, [E, P];
        and that centroid's number, int64 [E, P].
    """
    one = points.new_ones(points.shape[0], 1, points.shape[2])
    seeds, _ = d_squared_sampling([(one, points)], available, uniforms, mass=mass)
    counted = available if mass is None else available * mass
    centroids = torch.take_along_dim(points, seeds[:, None], 2)
    squared = points.square().sum(1)
    width = max(BLOCK // centroids.shape[2], 1)
    blocks = [slice(low, low + width) for low in range(0, points.shape[2], width)]
    for iteration in range(iterations + 1):
        nearest, total, size = [], points.new_zeros(()), points.new_zeros(())
        for at in blocks:
            distance = squared_distances(centroids, points[:, :, at], squared[:, at])
            nearest.append(distance.min(1))  # over the k centroids
            if iteration < iterations:
                index = nearest[-1].indices[:, None]
                member = torch.zeros_like(distance).scatter_(1, index, 1.0) * counted[:, None, at]
                size = size + member.sum(2)  # [E, k]
                total = total + torch.bmm(points[:, :, at], member.mT)
        if iteration == iterations:
            break
        moved = torch.where(size[:, None] > 0, total / size.clamp_min(1e-30)[:, None], centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    values = torch.cat([n.values for n in nearest], 1).clamp_min_(0.0)
    return centroids, values, torch.cat([n.indices for n in nearest], 1)


def squared_distances(centres: Tensor, points: Tensor, squared: Tensor) -> Tensor:
    """||c - x||^2 up to rounding, [E, K, P], for centres [E, H, K] and points [E, H, P] with `squared` norms [E, P]."""
    return squared[:, None] + centres.square().sum(1)[..., None] - 2.0 * torch.bmm(centres.mT, points)
