"""AMCB: adaptive modality contribution balancing (RL-MBA, arXiv 2603.25107)."""

from __future__ import annotations

import torch
from torch import Tensor


def contribution_weights(delta: Tensor, temperature: float, floor: float) -> Tensor:
    """Weights w = softmax(delta / temperature), each at least `floor`.

    Args:
        delta: Top1(head m) - Top1(multimodal head) on the validation rows, [..., M].
        temperature: tau > 0; large values weigh the modalities alike.
        floor: epsilon in [0, 1/M): no modality's weight falls below it.

    Returns:
        w on the simplex, [..., M].
    """
    count = delta.shape[-1]
    if count * floor > 1.0:
        floor = 1.0 / count
    return floor + (1.0 - count * floor) * torch.softmax(delta / temperature, dim=-1)


def weights_among_present(weights: Tensor, present: Tensor) -> Tensor:
    """Renormalise w over the modalities that each row has.

    Args:
        weights: [..., M].
        present: bool [..., M, R], at least one True in each row.

    Returns:
        One weight per modality and row, [..., M, R]; zero where the modality is absent.
    """
    masked = weights[..., None] * present
    return masked / masked.sum(-2, keepdim=True).clamp_min(1e-12)
