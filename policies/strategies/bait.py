"""BAIT (Ash et al., NeurIPS 2021, "Gone Fishing") with the binary Fisher embedding of Huseljic et al. (2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.round import Round
from policies.fisher_design import Design

LAMBDA = 1.0


def bait(round_: Round, batch_size: int) -> Tensor:
    """The batch that minimises trace(M^-1 I(pool)), by 2b greedy additions and b greedy removals; picks [E, b].

    A sample's Fisher information is v v^T with v = sqrt(p (1 - p)) z, p its top probability (arXiv 2404.08981); I(pool)
    is the mean over the pool, labelled rows included. M starts at LAMBDA I + n / (n + b) times the mean over the n
    labelled rows and grows by b / (n + b) v v^T with every pick, the weights of the authors' code (arXiv 2106.09675).
    """
    # In double precision: thousands of updates add up.
    points = round_.outputs.fisher_embedding(torch.float64)  # [E, D, P]
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
