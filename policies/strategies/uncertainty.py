"""Uncertainty sampling (Settles 2009): what the multimodal softmax is least sure of."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.round import Round
from policies.strategies.picking import largest


def least_confidence(round_: Round, batch_size: int) -> Tensor:
    """The smallest probabilities of the most probable class; picks [E, b]."""
    return largest(1.0 - round_.outputs.probabilities.amax(1), round_, batch_size)


def margin(round_: Round, batch_size: int) -> Tensor:
    """The smallest gaps between the two most probable classes; picks [E, b]."""
    top = round_.outputs.probabilities.mT.topk(2, dim=-1).values
    return largest(top[..., 1] - top[..., 0], round_, batch_size)


def entropy(round_: Round, batch_size: int) -> Tensor:
    """The largest entropies; picks [E, b]."""
    return largest(torch.special.entr(round_.outputs.probabilities).sum(1), round_, batch_size)
