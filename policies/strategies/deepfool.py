"""DeepFool (Moosavi-Dezfooli et al. 2016) for active learning (Ducoffe & Precioso 2018), on the last layer."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.round import Round
from policies.strategies.picking import largest


def deepfool(round_: Round, batch_size: int) -> Tensor:
    """The samples nearest to a decision boundary; picks [E, b].

    The distance is that of the embedding to the multimodal head's boundaries, which are planes, so DeepFool's first
    step is exact: min over l != k of (logit_k - logit_l) / ||B_k - B_l||, k the predicted class. Only what a sample
    can vary counts in the norm: neither the constant units, which carry the biases, nor absent modalities.
    """
    outputs = round_.outputs
    hidden, logits = outputs.hidden, outputs.logits
    episodes, modalities, units, _ = hidden.shape
    classes = logits.shape[1]
    head = round_.model.head.view(episodes, classes, modalities, units)[..., :-1]
    head = head.transpose(1, 2)  # [E, M, C, H - 1]
    product = head @ head.mT
    own = product.diagonal(dim1=2, dim2=3)
    squared = own[..., None] + own[:, :, None] - 2.0 * product  # [E, M, C, C] ||B_k - B_l||^2 of each modality
    predicted = logits.argmax(1, keepdim=True)  # [E, 1, P]
    index = predicted.expand(logits.shape)
    if outputs.present is None:
        norm = squared.sum(1).gather(2, index)  # [E, C, P]
    else:
        by_modality = (squared[:, m].gather(2, index) * outputs.present[:, m, None] for m in range(modalities))
        norm = sum(by_modality, torch.zeros_like(logits))
    gap = logits.gather(1, predicted) - logits
    # A boundary that the sample cannot reach is far away, not infinitely so: gaps still tell such samples apart.
    distance = gap / norm.clamp_min(1e-12).sqrt()
    return largest(-distance.scatter(1, predicted, torch.inf).amin(1), round_, batch_size)
