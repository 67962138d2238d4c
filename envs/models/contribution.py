"""How much each modality contributes: the weights of AMCB, and Shapley values.

AMCB: adaptive modality contribution balancing (RL-MBA, arXiv 2603.25107). Shapley values are exact: a modality
outside a coalition has its features zeroed, and all 2^M coalitions are evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb

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


def shapley_values(worth: Tensor) -> Tensor:
    """Shapley values (Shapley 1953) of M players, [M, ...].

    Args:
        worth: worth of every coalition, [2^M, ...]; player m takes part in coalition s where bit m of s is set.
    """
    coalitions = worth.shape[0]
    players = coalitions.bit_length() - 1
    share = worth.new_zeros(players, coalitions)
    for s in range(coalitions):
        size = s.bit_count()
        for m in range(players):
            if s >> m & 1:
                share[m, s] = 1.0 / (players * comb(players - 1, size - 1))
            else:
                share[m, s] = -1.0 / (players * comb(players - 1, size))
    return (share @ worth.reshape(coalitions, -1)).view(players, *worth.shape[1:])


def sample_contributions(multimodal_head: Tensor, hidden: Tensor, predicted: Tensor) -> Tensor:
    """Shapley value of each modality for the probability of the predicted class of each sample, [E, M, R].

    Args:
        multimodal_head: [E, C, M H].
        hidden: [E, M, H, R]; zeros where a modality is absent, whose value is then 0.
        predicted: [E, R] classes.
    """

    def worth(logits: Tensor) -> Tensor:
        own = torch.take_along_dim(logits, predicted[:, None], 1)[:, 0]
        return (own - torch.logsumexp(logits, 1)).exp()

    return shapley_values(_worths(multimodal_head, hidden, worth)).movedim(0, 1)


def accuracy_contributions(multimodal_head: Tensor, hidden: Tensor, labels: Tensor) -> Tensor:
    """Shapley value of each modality for the accuracy of the multimodal head, [E, M]; the sum is accuracy - 1/C.

    Args:
        multimodal_head: [E, C, M H].
        hidden: [E, M, H, R].
        labels: [E, R].
    """

    def worth(logits: Tensor) -> Tensor:
        return (logits.argmax(1) == labels).to(logits.dtype).mean(1)

    worths = _worths(multimodal_head, hidden, worth)
    worths[0] = 1.0 / multimodal_head.shape[1]  # without any modality: chance
    return shapley_values(worths).movedim(0, 1)


def _worths(multimodal_head: Tensor, hidden: Tensor, worth: Callable[[Tensor], Tensor]) -> Tensor:
    """`worth` of the logits [E, C, R] of every coalition, [2^M, ...]."""
    episodes, modalities, units, _ = hidden.shape
    heads = multimodal_head.view(episodes, -1, modalities, units).transpose(1, 2)  # [E, M, C, H]
    parts = torch.matmul(heads, hidden)  # what each modality adds to the logits, [E, M, C, R]

    def walk(m: int, logits: Tensor) -> Iterator[Tensor]:
        if m < 0:
            yield worth(logits)
        else:
            yield from walk(m - 1, logits)
            yield from walk(m - 1, logits + parts[:, m])

    # The highest bit is decided first, so that the coalitions come in the order of their numbers.
    return torch.stack(list(walk(modalities - 1, torch.zeros_like(parts[:, 0]))))
