"""Margin and entropy of the multimodal softmax: the b most uncertain samples."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.round import Round


def _largest(uncertainty: Tensor, round_: Round, batch_size: int) -> Tensor:
    return uncertainty.masked_fill(~round_.available, -torch.inf).topk(batch_size, dim=1).indices


def margin(round_: Round, batch_size: int) -> Tensor:
    """The smallest gaps between the two most probable classes; picks [E, b]."""
    top = round_.outputs.probabilities.mT.topk(2, dim=-1).values
    return _largest(top[..., 1] - top[..., 0], round_, batch_size)


def entropy(round_: Round, batch_size: int) -> Tensor:
    """The largest entropies; picks [E, b]."""
    return _largest(torch.special.entr(round_.outputs.probabilities).sum(1), round_, batch_size)
