"""EFDA: evidential fusion for difficulty-aware policy adjustment (RL-MBA, arXiv 2603.25107).

A head answers with Dirichlet parameters alpha = 1 + evidence over C classes. Tensors keep the rows on the last
axis and the classes on the one before it, as `envs.models.base.Outputs` does.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fuse_evidence(evidence: Tensor, weights: Tensor) -> Tensor:
    """Weighted evidential fusion: alpha_f = 1 + sum_m w_m (alpha_m - 1).

    Args:
        evidence: alpha_m - 1 of every modality, [..., M, C, R], not negative.
        weights: modality weights on the simplex, [..., M], or one per row, [..., M, R].

    Returns:
        alpha_f, [..., C, R].
    """
    if weights.dim() < evidence.dim() - 1:
        weights = weights[..., None]
    return 1.0 + (evidence * weights[..., None, :]).sum(-3)


def difficulty(alpha: Tensor) -> Tensor:
    """Difficulty U(x): the mean variance of the class probabilities under Dirichlet(alpha).

    U = (1/C) sum_c alpha_c (alpha_0 - alpha_c) / (alpha_0^2 (alpha_0 + 1)), alpha_0 = sum_c alpha_c.

    Args:
        alpha: [..., C, R].

    Returns:
        [..., R].
    """
    total = alpha.sum(-2)
    squared = total.square()
    # sum_c alpha_c (alpha_0 - alpha_c) = alpha_0^2 - sum_c alpha_c^2
    return (squared - alpha.square().sum(-2)) / (alpha.shape[-2] * squared * (total + 1.0))


def vacuity(alpha: Tensor) -> Tensor:
    """Share of the belief that no evidence supports, C / alpha_0, in (0, 1]: [..., C, R] to [..., R]."""
    return alpha.shape[-2] / alpha.sum(-2)


def expected_probabilities(alpha: Tensor) -> Tensor:
    """Mean of Dirichlet(alpha), [..., C, R]."""
    return alpha / alpha.sum(-2, keepdim=True)


def mean_entropy(alpha: Tensor) -> Tensor:
    """Entropy of the expected probabilities, in nats, [..., C, R] to [..., R]: uncertainty blind to the evidence."""
    return torch.special.entr(expected_probabilities(alpha)).sum(-2)


def softplus_and_slope(x: Tensor, out: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """softplus(x) and its derivative sigmoid(x), by way of softplus(x) = -log sigmoid(-x).

    In single precision softplus stops growing at 85. `out` holds both results; a loop should give it: fresh memory for
    every call costs as much as the arithmetic.
    """
    value, slope = out or (torch.empty_like(x), torch.empty_like(x))
    complement = torch.neg(x, out=slope).sigmoid_().clamp_min_(1e-37)
    torch.log(complement, out=value).neg_()
    return value, complement.neg_().add_(1.0)
