"""Strategies that cluster the pool: k-means on the embedding, TypiClust on the input features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from envs.kmeanspp import BLOCK, k_means, squared_distances
from envs.models.base import per_episode
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
    return nearest_of_centroids(points, centroids, round_.available, round_)


def nearest_of_centroids(points: Tensor, centroids: Tensor, among: Tensor, round_: Round) -> Tensor:
    """The point nearest to each centroid, of those that no centroid before it took; picks [E, b].

    Args:
        points: [E, H, P].
        centroids: [E, H, b].
        among: bool [E, P], those that may be taken; at least b True in each episode.
        round_: whose time is measured.
    """
    squared = points.square().sum(1)
    with round_.stopwatch.measure("picking"):
        open_ = among.clone()
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
    points = round_.model.inputs()
    starts, _, pool = points.shape
    copies = round_.episodes // starts
    count = cluster_count(round_.labelled.shape[1], batch_size, pool)
    uniforms = round_.uniforms("typiclust", count)[::copies]
    cluster = clusters_of(points, uniforms)
    with round_.stopwatch.measure("picking"):
        return typical_of_clusters(points, cluster, round_.labelled, round_.available, batch_size)


def cluster_count(labelled: int, batch_size: int, pool: int) -> int:
    """Into how many clusters TypiClust divides a pool."""
    return min(labelled + batch_size, MAX_CLUSTERS, pool)


@dataclass(frozen=True)
class Clusters:
    """The cluster of each of P samples, of S starts."""

    of: Tensor  # int64 [S, P]
    count: int


def clusters_of(points: Tensor, uniforms: Tensor) -> Clusters:
    """Divide points [S, D, P] by k-means, seeded by uniforms [S, k]."""
    everything = torch.ones(points.shape[0], points.shape[2], dtype=torch.bool, device=points.device)
    return Clusters(k_means(points, everything, uniforms, LLOYD_ITERATIONS)[2], uniforms.shape[1])


def typical_of_clusters(
    points: Tensor, clusters: Clusters, labelled: Tensor, available: Tensor, batch_size: int
) -> Tensor:
    """The most typical available samples of the clusters that `choose_clusters` names; picks [E, b].

    Args:
        points: [S, D, P]; each start is shared by E / S copies.
        labelled: positions [E, n].
        available: bool [E, P].
    """
    episodes, copies = len(available), len(available) // len(points)
    every = Clusters(per_episode(clusters.of, episodes), clusters.count)
    chosen = choose_clusters(every, labelled, available, batch_size)
    sizes = [torch.bincount(c, minlength=clusters.count).tolist() for c in clusters.of]
    members = [c.argsort(stable=True).split(s) for c, s in zip(clusters.of, sizes, strict=True)]
    distances: dict[tuple[int, int], Tensor] = {}
    picks = torch.empty_like(chosen)
    for e in range(episodes):
        start = e // copies
        for number in chosen[e].unique().tolist():
            rows = members[start][number]
            if (start, number) not in distances:
                distances[start, number] = neighbour_distance(points[start][:, rows])
            slots = (chosen[e] == number).nonzero()[:, 0]
            atypical = distances[start, number].masked_fill(~available[e, rows], torch.inf)
            picks[e, slots] = rows[atypical.topk(len(slots), largest=False).indices]
    return picks


def choose_clusters(clusters: Clusters, labelled: Tensor, available: Tensor, batch_size: int) -> Tensor:
    """The cluster that each pick comes from, [E, b]; `clusters.of` is [E, P]."""
    cluster, count, pool = clusters.of, clusters.count, clusters.of.shape[1]

    def members(of: Tensor, among: Tensor) -> Tensor:
        zeros = torch.zeros(len(of), count, dtype=torch.int64, device=of.device)
        return zeros.scatter_add_(1, of, among.long())

    size = members(cluster, torch.ones_like(cluster))  # [E, count]
    at_labelled = cluster.gather(1, labelled)
    covered = members(at_labelled, torch.ones_like(at_labelled))
    left = members(cluster, available)
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
