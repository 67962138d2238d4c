"""CoreSet (Sener & Savarese, ICLR 2018): k-center greedy on the multimodal embedding."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.kmeanspp import BLOCK, inner_products, squared_distances
from envs.round import Round


def coreset(round_: Round, batch_size: int) -> Tensor:
    """Pick the sample farthest from all labelled and picked ones, b times; picks [E, b]."""
    points = round_.outputs.embedding()  # [E, M H, P]
    squared = points.square().sum(1)
    nearest = distance_to_labelled(round_, points, squared)
    factors = [(torch.ones_like(squared)[:, None], points)]
    with round_.stopwatch.measure("picking"):
        open_ = round_.available.clone()
        picks = []
        for _ in range(batch_size):
            pick = nearest.masked_fill(~open_, -1.0).argmax(1)
            picks.append(pick)
            open_.scatter_(1, pick[:, None], False)
            distance = squared + squared.gather(1, pick[:, None]) - 2.0 * inner_products(factors, pick)
            nearest = torch.minimum(nearest, distance.clamp_min_(0.0))
        return torch.stack(picks, 1)


def distance_to_labelled(round_: Round, points: Tensor, squared: Tensor) -> Tensor:
    """Squared distance of points [E, H, P], of squared norms [E, P], to the nearest labelled one, [E, P]."""
    nearest = torch.full_like(squared, torch.inf)
    for positions in round_.labelled.split(max(BLOCK // points.shape[2], 1), dim=1):
        centres = torch.take_along_dim(points, positions[:, None], 2)
        nearest = torch.minimum(nearest, squared_distances(centres, points, squared).amin(1))
    return nearest.clamp_min_(0.0)
