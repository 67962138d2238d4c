"""What the strategies share when a batch is put together."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.round import Round


def largest(scores: Tensor, round_: Round, batch_size: int) -> Tensor:
    """The b unlabelled samples with the largest scores [E, P], which must be finite; picks [E, b], best first."""
    with round_.stopwatch.measure("picking"):
        return scores.masked_fill(~round_.available, -torch.inf).topk(batch_size, dim=1).indices
