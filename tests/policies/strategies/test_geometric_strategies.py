"""Strategies that look at where samples lie (CoreSet, k-means, TypiClust, DeepFool), each against a slow reference."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.kmeanspp import k_means
from envs.round import Round
from policies.strategies import STRATEGIES
from policies.strategies.clustering import (
    LLOYD_ITERATIONS,
    MIN_CLUSTER_SIZE,
    NEIGHBOURS,
    Clusters,
    choose_clusters,
    neighbour_distance,
)
from tests.support.rounds import CASES, with_head

checked = settings(deadline=None, max_examples=40)
B = 12


def embeddings(round_: Round, e: int) -> np.ndarray:
    """[P, M H] in double precision."""
    return round_.outputs.embedding()[e].double().numpy().T


# CoreSet


@pytest.mark.parametrize("block", [2**24, 200, 1])
@pytest.mark.parametrize("case", CASES)
def test_coreset_takes_the_sample_farthest_from_every_centre(case: str, block: int, rounds, monkeypatch) -> None:
    monkeypatch.setattr(importlib.import_module("policies.strategies.coreset"), "BLOCK", block)
    round_ = rounds[case]
    picks = STRATEGIES["coreset"](round_, B)
    for e in range(round_.episodes):
        rows = embeddings(round_, e)
        centres = round_.labelled[e].tolist()
        for pick in picks[e].tolist():
            distance = np.array([min(np.linalg.norm(row - rows[c]) for c in centres) for row in rows])
            distance[~round_.available[e].numpy()] = -1.0
            assert distance[pick] == pytest.approx(distance.max(), rel=1e-3)
            centres.append(pick)


# k-means


@pytest.mark.parametrize("case", CASES)
def test_kmeans_takes_the_nearest_sample_of_each_centroid(case: str, rounds) -> None:
    round_ = rounds[case]
    picks = STRATEGIES["kmeans"](round_, B)
    points = round_.outputs.embedding()
    centroids, _, own = k_means(points, round_.available, round_.uniforms("kmeans", B), LLOYD_ITERATIONS)
    for e in range(round_.episodes):
        rows, open_ = embeddings(round_, e), round_.available[e].numpy().copy()
        for j, pick in enumerate(picks[e].tolist()):
            distance = np.linalg.norm(rows - centroids[e, :, j].double().numpy(), axis=1)
            assert distance[pick] ** 2 == pytest.approx(distance[open_].min() ** 2, abs=1e-3)
            open_[pick] = False
        # The rule in one line: the batch covers the clusters.
        assert len(set(own[e, picks[e]].tolist())) >= 0.8 * B


# TypiClust


def slow_neighbour_distance(rows: np.ndarray, i: int) -> float:
    others = sorted(np.linalg.norm(row - rows[i]) for j, row in enumerate(rows) if j != i)[:NEIGHBOURS]
    return float(np.mean(others)) if others else 0.0


@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([2**24, 50, 1]))
@checked
def test_neighbour_distance_is_the_mean_over_the_nearest(seed: int, count: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 3))[rng.integers(0, count, count)]  # duplicates among them
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("policies.strategies.clustering"), "BLOCK", block)
        distance = neighbour_distance(torch.from_numpy(rows.T))
    np.testing.assert_allclose(distance, [slow_neighbour_distance(rows, i) for i in range(count)], atol=1e-9)


def slow_choice(cluster: np.ndarray, labelled: list[int], available: np.ndarray, b: int) -> list[int]:
    """The cluster of each pick."""
    covered = [int((cluster[labelled] == c).sum()) for c in range(cluster.max() + 1)]
    size = [int((cluster == c).sum()) for c in range(cluster.max() + 1)]
    left = [int((cluster[available] == c).sum()) for c in range(cluster.max() + 1)]
    chosen = []
    for _ in range(b):
        some = [c for c in range(len(size)) if left[c] > 0]
        best = min(some, key=lambda c: (size[c] < MIN_CLUSTER_SIZE, covered[c], -size[c], c))
        chosen.append(best)
        covered[best] += 1
        left[best] -= 1
    return chosen


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 30))
@checked
def test_large_uncovered_clusters_come_first(seed: int, count: int, b: int) -> None:
    rng = np.random.default_rng(seed)
    cluster = rng.choice(count, (2, 60), p=rng.dirichlet(np.ones(count)))
    cluster[:, 0] = count - 1
    labelled = np.stack([rng.choice(60, 9, replace=False) for _ in range(2)])
    available = np.ones((2, 60), bool)
    np.put_along_axis(available, labelled, False, 1)

    clusters = Clusters(torch.from_numpy(cluster), count)
    chosen = choose_clusters(clusters, torch.from_numpy(labelled), torch.from_numpy(available), b)
    for e in range(2):
        assert chosen[e].tolist() == slow_choice(cluster[e], labelled[e].tolist(), available[e], b)


@pytest.mark.parametrize("case", CASES)
def test_typiclust_takes_the_most_typical_of_each_cluster(case: str, rounds) -> None:
    round_ = rounds[case]
    picks = STRATEGIES["typiclust"](round_, B)
    count = round_.labelled.shape[1] + B
    points = round_.model.inputs()
    copies = round_.episodes // len(points)
    uniforms = round_.uniforms("typiclust", count)[::copies]
    everything = torch.ones(len(points), points.shape[2], dtype=torch.bool)
    _, _, clusters = k_means(points, everything, uniforms, LLOYD_ITERATIONS)
    for e in range(round_.episodes):
        rows, cluster = points[e // copies].double().numpy().T, clusters[e // copies].numpy()
        open_ = round_.available[e].numpy().copy()
        chosen = slow_choice(cluster, round_.labelled[e].tolist(), open_, B)
        assert cluster[picks[e]].tolist() == chosen
        for pick, number in zip(picks[e].tolist(), chosen, strict=True):
            members = np.flatnonzero(cluster == number)
            distance = [slow_neighbour_distance(rows[members], i) for i in range(len(members))]
            best = min(d for d, m in zip(distance, members, strict=True) if open_[m])
            assert distance[members.tolist().index(pick)] == pytest.approx(best, rel=1e-5)
            open_[pick] = False


# DeepFool


def distances_to_boundaries(round_: Round, e: int, row: int) -> list[float]:
    """To the boundary with each other class, over the directions in which the sample can move."""
    outputs = round_.outputs
    free = torch.zeros(outputs.hidden.shape[1:3], dtype=torch.bool)
    free[:, :-1] = True  # the last unit is the constant one
    if outputs.present is not None:
        free &= outputs.present[e, :, row, None]
    head = round_.model.head[e].double().numpy()
    z = outputs.embedding()[e, :, row].double().numpy()
    logits = head @ z
    k = logits.argmax()
    found = []
    for other in range(len(logits)):
        if other != k:
            w = (head[k] - head[other]) * free.flatten().numpy()
            gap = logits[k] - logits[other]
            moved = head @ (z - gap * w / (w @ w))
            assert moved[k] == pytest.approx(moved[other], abs=1e-6)  # this step reaches the boundary
            found.append(gap / np.linalg.norm(w))
    return found


@pytest.mark.parametrize("case", CASES)
def test_deepfool_takes_the_samples_nearest_to_a_boundary(case: str, rounds) -> None:
    round_ = rounds[case]
    picks = STRATEGIES["deepfool"](round_, B)
    for e in range(round_.episodes):
        open_ = np.flatnonzero(round_.available[e])
        distance = np.array([min(distances_to_boundaries(round_, e, row)) for row in open_])
        expected = open_[np.argsort(distance)[:B]]
        assert picks[e].tolist() == expected.tolist()


def test_deepfool_does_without_a_boundary(rounds) -> None:
    """Two classes with the same head rows: only the gaps, through the constant unit, tell samples apart."""
    round_ = rounds["plain"]
    picks = STRATEGIES["deepfool"](with_head(round_, 1, 3.0), B)
    assert round_.available.gather(1, picks).all()
