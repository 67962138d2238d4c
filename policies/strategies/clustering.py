"""Strategies that cluster the pool: k-means on the embedding, TypiClust on the input features."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.kmeanspp import BLOCK, k_means, squared_distances
from envs.models.frozen.model import per_episode
from envs.round import Round

LLOYD_ITERATIONS = 20
MAX_CLUSTERS = 500  # this and what follows as published for TypiClust
MIN_CLUSTER_SIZE = 6
NEIGHBOURS = 20


def kmeans(round_: Round, batch_size: int) -> Tensor:
    """The unlabelled sample nearest to each of b centroids of the unlabelled embeddings; picks [E, b].

    A centroid whose nearest sample is taken gets the nearest one left. Cf. Zhdanov (2019, arXiv 1901.05954), who
    also preselects and weighs the samples by their margins.
    """
    points = round_.outputs.embedding()  # [E, M H, P]
    uniforms = round_.uniforms("kmeans", batch_size)
    centroids, _, _ = k_means(points, round_.available, uniforms, LLOYD_ITERATIONS)
    squared = points.square().sum(1)
    with round_.stopwatch.measure("picking"):
        open_ = round_.available.clone()
        picks = []
        for some in centroids.split(max(BLOCK // points.shape[2], 1), dim=2):
            for distance in squared_distances(some, points, squared).unbind(1):
                pick = distance.masked_fill(~open_, torch.inf).argmin(1)
                picks.append(pick)
                open_.scatter_(1, pick[:, None], False)
        return torch.stack(picks, 1)


def typiclust(round_: Round, batch_size: int) -> Tensor:
    """TypiClust (Hacohen et al., ICML 2022): the most typical sample of each large uncovered cluster; picks [E, b].

    The pool's input features, all modalities together, stand for the paper's self-supervised ones; they are clustered
    into labelled + b clusters, at most 500. Each pick comes from the cluster with the fewest labelled or picked
    samples, of these the largest; clusters of 5 samples or fewer wait until the others are used up.
    """
    points = round_.x[:, :, :-1].flatten(1, 2)  # [S, M D, P]
    starts, _, pool = points.shape
    copies = round_.episodes // starts
    count = min(round_.labelled.shape[1] + batch_size, MAX_CLUSTERS, pool)
    everything = torch.ones(starts, pool, dtype=torch.bool, device=points.device)
    uniforms = round_.uniforms("typiclust", count)[::copies]
    _, _, cluster = k_means(points, everything, uniforms, LLOYD_ITERATIONS)  # [S, P]
    with round_.stopwatch.measure("picking"):
        chosen = choose_clusters(per_episode(cluster, round_.episodes), round_, batch_size, count)
        members = [c.argsort(stable=True).split(torch.bincount(c, minlength=count).tolist()) for c in cluster]
        distances: dict[tuple[int, int], Tensor] = {}
        picks = torch.empty_like(chosen)
        for e in range(round_.episodes):
            start = e // copies
            for number in chosen[e].unique().tolist():
                rows = members[start][number]
                if (start, number) not in distances:
                    distances[start, number] = neighbour_distance(points[start][:, rows])
                slots = (chosen[e] == number).nonzero()[:, 0]
                atypical = distances[start, number].masked_fill(~round_.available[e, rows], torch.inf)
                picks[e, slots] = rows[atypical.topk(len(slots), largest=False).indices]
        return picks


def choose_clusters(cluster: Tensor, round_: Round, batch_size: int, count: int) -> Tensor:
    """The cluster that each pick comes from, [E, b], given every sample's cluster [E, P] of `count`."""
    pool = cluster.shape[1]

    def members(of: Tensor, among: Tensor) -> Tensor:
        zeros = torch.zeros(len(of), count, dtype=torch.int64, device=of.device)
        return zeros.scatter_add_(1, of, among.long())

    size = members(cluster, torch.ones_like(cluster))  # [E, count]
    labelled = cluster.gather(1, round_.labelled)
    covered = members(labelled, torch.ones_like(labelled))
    left = members(cluster, round_.available)
    # Lexicographic: small, covered, larger first.
    order = ((size < MIN_CLUSTER_SIZE) * (pool + 1) + covered) * (pool + 1) + (pool - size)
    last = torch.iinfo(torch.int64).max
    chosen = []
    for _ in range(batch_size):
        pick = order.masked_fill(left == 0, last).argmin(1, keepdim=True)
        chosen.append(pick)
        order.scatter_add_(1, pick, torch.full_like(pick, pool + 1))
        left.scatter_add_(1, pick, torch.full_like(pick, -1))
    return torch.cat(chosen, 1)


def neighbour_distance(points: Tensor) -> Tensor:
    """Mean distance of points [D, R] to their up to 20 nearest neighbours among them, [R]: 1 / typicality."""
    rows = points.mT.contiguous()
    count = min(NEIGHBOURS, len(rows) - 1)
    parts = []
    for some in rows.split(max(BLOCK // len(rows), 1)):
        # Products would leave rounding errors between duplicates, and each point's own 0 must be the smallest.
        distance = torch.cdist(some, rows, compute_mode="donot_use_mm_for_euclid_dist")
        parts.append(distance.topk(count + 1, largest=False).values.sum(1) / max(count, 1))
    return torch.cat(parts)
