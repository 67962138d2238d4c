"""FALCUN (Gilhuber et al., ECML PKDD 2024, "A Simple and Efficient Deep Active Learning Strategy")."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.kmeanspp import draw_proportional
from envs.round import Round

GAMMA = 10.0  # as published


def falcun(round_: Round, batch_size: int) -> Tensor:
    """Draw b samples with probability proportional to (uncertainty + diversity)^10; picks [E, b].

    All happens among class probabilities, here those of the multimodal softmax. The uncertainty is 1 - margin. The
    diversity is the L1 distance to the nearest pick, at most the uncertainty, scaled to reach from 0 to 1 over the
    samples that are left.
    """
    p = round_.outputs.probabilities  # [E, C, P]
    top = p.topk(2, dim=1).values
    uncertainty = 1.0 - (top[:, 0] - top[:, 1])
    uniforms = round_.uniforms("falcun", batch_size)
    with round_.stopwatch.measure("picking"):
        distance, open_ = uncertainty.clone(), round_.available.clone()
        picks = []
        for j in range(batch_size):
            weights = relevance(uncertainty, distance, open_)
            pick = draw_proportional(weights, uniforms[:, j])[:, None]
            picks.append(pick)
            open_.scatter_(1, pick, False)
            new = (p - torch.take_along_dim(p, pick[:, None], 2)).abs_().sum(1)
            distance = torch.minimum(distance, new)
        return torch.cat(picks, 1)


def relevance(uncertainty: Tensor, distance: Tensor, open_: Tensor) -> Tensor:
    """(uncertainty + scaled distance)^10 where `open_`, else 0; alike where all are 0; [E, P] each."""
    low = distance.masked_fill(~open_, torch.inf).amin(1, keepdim=True)
    high = distance.masked_fill(~open_, -torch.inf).amax(1, keepdim=True)
    span = high - low
    scaled = (distance - low) / torch.where(span > 0, span, 1.0)
    weights = (uncertainty + scaled).pow(GAMMA) * open_
    return torch.where(weights.sum(1, keepdim=True) > 0, weights, open_.to(weights.dtype))
