"""Scales on which features mean the same on every data set: ranks, and logarithms of ratios."""

from __future__ import annotations

import torch
from torch import Tensor

LOG_LIMITS = (-8.0, 4.0)
_LEAST_RATIO = 1e-4  # below it ratios no longer differ


def log_ratio(values: Tensor, mean: Tensor) -> Tensor:
    """log(values / mean), limited; values and mean are at least 0 and of shapes that broadcast."""
    return (values / mean.clamp_min(1e-20) + _LEAST_RATIO).log().clamp(*LOG_LIMITS)


def rank_normalise(values: Tensor) -> Tensor:
    """Ranks along the last axis, mapped to [-1, 1]; ties share their mean rank, a constant becomes 0."""
    count = values.shape[-1]
    ordered, order = values.sort(-1)
    rank = torch.arange(count, device=values.device, dtype=values.dtype).expand_as(values).contiguous()
    begins = ordered[..., 1:] != ordered[..., :-1]
    tied = (~begins).any(-1)  # few features have ties
    if bool(tied.any()):
        rank[tied] = _mean_rank_of_runs(begins[tied]).to(rank.dtype)
    rank.sub_((count - 1) / 2).mul_(2.0 / max(count - 1, 1))
    return torch.empty_like(values).scatter_(-1, order, rank)


def _mean_rank_of_runs(begins: Tensor) -> Tensor:
    """Mean position of the run that each position lies in, [n, K]; `begins` [n, K - 1]: a run begins behind it."""
    run = torch.nn.functional.pad(begins.long().cumsum(-1), (1, 0))  # [n, K] number of the run
    index = torch.arange(run.shape[-1], device=run.device, dtype=torch.float32).expand(run.shape)
    size = torch.zeros(run.shape, device=run.device).scatter_add_(-1, run, torch.ones_like(index))
    total = torch.zeros(run.shape, device=run.device).scatter_add_(-1, run, index)
    return (total / size.clamp_min(1.0)).gather(-1, run)
