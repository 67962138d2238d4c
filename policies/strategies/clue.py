"""CLUE (Prabhu et al., ICCV 2021, arXiv 2010.08666): k-means on embeddings that count by their uncertainty."""

from __future__ import annotations

from torch import Tensor

from envs.kmeanspp import k_means
from envs.round import Round
from policies.strategies.clustering import LLOYD_ITERATIONS, nearest_of_centroids

SMOOTHING = 1e-8  # of probabilities, as in the authors' code; it keeps every weight above 0


def clue(round_: Round, batch_size: int) -> Tensor:
    """The unlabelled sample nearest to each of b centroids, in which samples count by their entropy; picks [E, b].

    Embeddings are the input of the multimodal head, and the entropy is that of its softmax at temperature 1. The method
    was made for another domain's unlabelled data; here the domain is the same.
    """
    points = round_.outputs.embedding()  # [E, M H, P]
    p = round_.outputs.probabilities + SMOOTHING
    entropy = -(p * p.log()).sum(1)
    uniforms = round_.uniforms("clue", batch_size)
    centroids, _, _ = k_means(points, round_.available, uniforms, LLOYD_ITERATIONS, mass=entropy)
    return nearest_of_centroids(points, centroids, round_.available, round_)
