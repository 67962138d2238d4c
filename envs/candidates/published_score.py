"""RL-MBA's published score q: modality-weighted uncertainty plus distance to k-means++ centroids."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from envs.kmeanspp import k_means
from envs.models.evidence import difficulty, mean_entropy
from envs.round import Round

LLOYD_ITERATIONS = 5


@dataclass(frozen=True)
class Score:
    """q over the pool and the diversity term as it is, [E, P] each; meaningful for unlabelled samples."""

    q: Tensor
    diversity: Tensor

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Both at positions [E, K]."""
        return torch.take_along_dim(self.q, positions, 1), torch.take_along_dim(self.diversity, positions, 1)


def published_score(round_: Round, batch_size: int, beta: float, efda: bool = True) -> Score:
    """q(x) = sum_m w_m u_m(x) + beta d(x), each term min-max normalised over the unlabelled samples.

    u_m is the difficulty of modality m's own head (without `efda` the entropy of its expected probabilities), d the
    distance of the fused features f(x) = sum_m w_m f_m(x) to the nearest centroid of a k-means++ with k = batch_size
    and at most 5 Lloyd iterations.
    """
    outputs, available = round_.outputs, round_.available
    weights = round_.weights_for(outputs)
    weights = weights[..., None] if weights.dim() == 2 else weights  # [E, M, P or 1]
    uncertainty = (difficulty if efda else mean_entropy)(outputs.evidence + 1.0)  # [E, M, P]
    seen = available[:, None] if outputs.present is None else available[:, None] & outputs.present
    term = (weights * _min_max(uncertainty, seen)).sum(1)
    fused = (weights[:, :, None] * outputs.hidden).sum(1)  # [E, H, P]
    distance = centroid_distance(fused, available, batch_size, round_.uniforms("centroids", batch_size))
    return Score(term + beta * _min_max(distance, available), distance)


def centroid_distance(points: Tensor, available: Tensor, k: int, uniforms: Tensor) -> Tensor:
    """Distance of every point [E, H, P] to the nearest of k centroids of the available points, [E, P].

    The centroids are seeded by D^2 sampling with `uniforms` [E, k] and refined by Lloyd iterations.
    """
    return k_means(points, available, uniforms, LLOYD_ITERATIONS)[1].sqrt()


def _min_max(values: Tensor, among: Tensor) -> Tensor:
    low = values.masked_fill(~among, torch.inf).amin(-1, keepdim=True)
    high = values.masked_fill(~among, -torch.inf).amax(-1, keepdim=True)
    return ((values - low) / (high - low).clamp_min(1e-12)).masked_fill(~among, 0.0)
