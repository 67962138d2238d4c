"""BMMAL (Shen et al. 2023, arXiv 2306.08306): D^2 sampling over per-modality gradient embeddings, balanced."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.kmeanspp import Factor, d_squared_sampling, squared_norms
from envs.models.contribution import sample_contributions
from envs.models.evidence import expected_probabilities
from envs.round import Round


def bmmal(round_: Round, batch_size: int) -> Tensor:
    """BMMAL on the evidential modality heads of the task model; picks [E, b]."""
    probabilities = expected_probabilities(round_.outputs.evidence + 1.0)  # [E, M, C, P]
    return _pick(round_, round_, probabilities, batch_size)


def bmmal_ce(round_: Round, batch_size: int) -> Tensor:
    """BMMAL as published, on task models of its own whose modality heads learn by cross-entropy; picks [E, b]."""
    trained = round_.refitted(heads="cross_entropy")
    return _pick(round_, trained, torch.softmax(trained.outputs.modality_logits, dim=2), batch_size)


def _pick(round_: Round, trained: Round, probabilities: Tensor, batch_size: int) -> Tensor:
    factors = gradient_factors(trained, probabilities)
    with round_.stopwatch.measure("picking"):
        first = squared_norms(factors).masked_fill(~round_.available, -1.0).argmax(1)
        uniforms = round_.uniforms("bmmal", batch_size)
        return d_squared_sampling(factors, round_.available, uniforms, first)[0]


def gradient_factors(round_: Round, probabilities: Tensor) -> list[Factor]:
    """One factor per modality: (contribution * (p_m - onehot(y)), z_m), y the multimodal head's class.

    The contribution is |phi_m| / sum |phi|, phi the Shapley values of the modalities for the probability of y;
    alike where all are 0. An absent modality's z_m is 0, so it adds nothing.

    Args:
        probabilities: of the modality heads, [E, M, C, P].
    """
    outputs = round_.outputs
    predicted = outputs.logits.argmax(1)  # [E, P]
    phi = sample_contributions(round_.model.head, outputs.hidden, predicted).abs()
    total = phi.sum(1, keepdim=True)
    share = torch.where(total > 0, phi / total.clamp_min(1e-30), 1.0 / phi.shape[1])  # [E, M, P]
    factors = []
    for m in range(phi.shape[1]):
        error = probabilities[:, m].clone()
        error.scatter_add_(1, predicted[:, None], error.new_full((), -1.0).expand_as(predicted[:, None]))
        factors.append((error * share[:, m, None], outputs.hidden[:, m]))
    return factors
