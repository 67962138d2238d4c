"""BADGE (Ash et al., ICLR 2020): k-means++ seeding over last-layer gradient embeddings, never written out."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.kmeanspp import Factor, d_squared_sampling, squared_norms
from envs.models.base import Outputs
from envs.round import Round


def badge(round_: Round, batch_size: int) -> Tensor:
    """Pick the largest gradient first, then draw proportionally to the squared distance to the picks; picks [E, b]."""
    factors = [gradient_factor(round_.outputs)]
    with round_.stopwatch.measure("picking"):
        first = squared_norms(factors).masked_fill(~round_.available, -1.0).argmax(1)
        uniforms = round_.uniforms("badge", batch_size)
        return d_squared_sampling(factors, round_.available, uniforms, first)[0]


def gradient_factor(outputs: Outputs) -> Factor:
    """(p - onehot(argmax p), z): the gradient of the cross-entropy at the predicted class is their outer product."""
    p = outputs.probabilities  # [E, C, P]
    return p - torch.zeros_like(p).scatter_(1, p.argmax(1, keepdim=True), 1.0), outputs.embedding()
