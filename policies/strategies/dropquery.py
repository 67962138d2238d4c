"""DropQuery (Gupte et al. 2024, "Revisiting Active Learning in the Era of Vision Foundation Models", arXiv 2401.14555).

The paper has a linear classifier on the features of a frozen foundation model; it drops features, and clusters them.
Here units are dropped from the embedding, on which the multimodal head is linear; the constant units, which carry the
biases, stay. Clustered are the pool's input features, all modalities together, which like the paper's no label changed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.kmeanspp import BLOCK, k_means
from envs.models.base import per_episode
from envs.round import Round
from policies.strategies.clustering import LLOYD_ITERATIONS, nearest_of_centroids

# As published.
DROPOUT = 0.75
PASSES = 3


def dropquery(round_: Round, batch_size: int) -> Tensor:
    """Of the samples whose predicted class dropout changes, the nearest to each of b centroids; picks [E, b].

    Candidates are the samples whose class changes in more than half of the passes. Where they are fewer than b (the
    paper does not say what then), those with the most changes make up for them, and of those chance decides.
    """
    points = per_episode(round_.model.inputs(), round_.episodes)  # [E, D, P]
    changes = dropout_changes(round_)
    order = changes + 0.5 * round_.uniforms("dropquery ties", points.shape[2]).to(changes)
    most = order.masked_fill(~round_.available, -1.0).topk(batch_size, dim=1).indices
    candidates = (round_.available & (changes > PASSES / 2)).scatter(1, most, True)
    uniforms = round_.uniforms("dropquery", batch_size)
    centroids, _, _ = k_means(points, candidates, uniforms, LLOYD_ITERATIONS)
    return nearest_of_centroids(points, centroids, candidates, round_)


def dropout_changes(round_: Round) -> Tensor:
    """In how many of the passes each sample's class is another than without dropout, [E, P]."""
    outputs, head = round_.outputs, round_.model.head
    points, units = outputs.embedding(), outputs.hidden.shape[2]
    predicted = outputs.logits.argmax(1)
    width = max(BLOCK // points.shape[1], 1)
    counts = []
    for low in range(0, points.shape[2], width):
        some = points[:, :, low : low + width]
        count = torch.zeros_like(some[:, 0])
        for number in range(PASSES):
            drawn = round_.uniforms(f"dropquery pass {number} from {low}", some.shape[1] * some.shape[2])
            scale = (drawn >= DROPOUT).to(some.dtype).div_(1.0 - DROPOUT).view(some.shape)
            scale[:, units - 1 :: units] = 1.0
            count += torch.bmm(head, some * scale).argmax(1) != predicted[:, low : low + width]
        counts.append(count)
    return torch.cat(counts, 1)
