"""RL-MBA's published score: what it depends on, and its centroids."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from envs.candidates.published_score import centroid_distance, published_score


@pytest.mark.parametrize("which", ["pool", "missing_pool", "single_pool"])
def test_the_score_depends_on_available_rows_alone(which: str, begin, request, rng) -> None:
    _, round_ = begin(request.getfixturevalue(which), (0, 1))
    rows = round_.model.rows
    x = rows.x.clone()
    for s in range(2):
        taken = round_.labelled[s]
        noise = torch.from_numpy(rng.normal(0, 20, (*x.shape[1:3], len(taken))).astype(np.float32))
        x[s][:, :, taken] += noise
    model = dataclasses.replace(round_.model, rows=dataclasses.replace(rows, x=x))
    moved = dataclasses.replace(round_, model=model)
    assert (moved.outputs.logits - round_.outputs.logits).abs().max() > 1.0
    one, two = published_score(round_, 4, 1.0), published_score(moved, 4, 1.0)
    open_ = round_.available
    torch.testing.assert_close(one.q[open_], two.q[open_])
    torch.testing.assert_close(one.diversity[open_], two.diversity[open_])


def test_the_score_weighs_its_terms(pool, begin) -> None:
    _, round_ = begin(pool)
    open_ = round_.available
    without, with_, twice = (published_score(round_, 4, beta) for beta in (0.0, 1.0, 2.0))
    torch.testing.assert_close(twice.q - with_.q, with_.q - without.q)
    term = (with_.q - without.q)[open_]
    assert term.min() == pytest.approx(0.0, abs=1e-6)
    assert term.max() == pytest.approx(1.0, abs=1e-6)
    assert spearmanr(term, with_.diversity[open_]).statistic > 0.999
    assert without.q[open_].min() >= 0
    assert without.q[open_].max() <= 1 + 1e-6  # the weights sum to 1


def test_a_centroid_per_point_leaves_no_distance(rng: np.random.Generator) -> None:
    points = torch.from_numpy(rng.normal(size=(2, 5, 9)))
    uniforms = torch.from_numpy(rng.random((2, 9)))
    everything = torch.ones(2, 9, dtype=torch.bool)
    assert centroid_distance(points, everything, 9, uniforms).max() < 1e-6
    assert centroid_distance(points, everything, 3, uniforms[:, :3]).max() > 0.1


def test_centroids_find_separate_clusters(rng: np.random.Generator) -> None:
    centres = 20 * np.eye(3, 5)
    points = np.repeat(centres, 10, 0) + rng.normal(0, 0.1, (30, 5))
    tensor = torch.from_numpy(points.T[None])
    distance = centroid_distance(tensor, torch.ones(1, 30, dtype=torch.bool), 3, torch.rand(1, 3))
    means = points.reshape(3, 10, 5).mean(1).repeat(10, 0)
    np.testing.assert_allclose(distance[0], np.linalg.norm(points - means, axis=1), atol=1e-6)
