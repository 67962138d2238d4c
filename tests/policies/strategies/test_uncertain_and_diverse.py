"""Strategies that spread over uncertain samples (DropQuery, CLUE, FALCUN), each against a slow reference."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch

from envs.kmeanspp import k_means
from envs.models.base import per_episode
from envs.round import Round
from policies.strategies import STRATEGIES
from policies.strategies.clustering import LLOYD_ITERATIONS
from policies.strategies.dropquery import DROPOUT, PASSES, dropout_changes
from policies.strategies.falcun import relevance
from tests.support.rounds import with_head

B = 12
CASES = ("plain", "missing", "later")


@pytest.fixture(scope="module")
def rounds(pool, missing_pool, begin) -> dict[str, Round]:
    simulation, plain = begin(pool, (0, 1), copies=2)
    later = simulation.label(plain.available.int().topk(4, dim=1).indices)
    return {"plain": plain, "missing": begin(missing_pool, (0, 1))[1], "later": later}


def require_nearest(picks: list[int], rows: np.ndarray, centroids: np.ndarray, open_: np.ndarray) -> None:
    """Pick j is the nearest to centroid j of those that are left."""
    open_ = open_.copy()
    for pick, centroid in zip(picks, centroids, strict=True):
        distance = ((rows - centroid) ** 2).sum(1)
        assert distance[pick] == pytest.approx(distance[open_].min(), abs=1e-3)
        open_[pick] = False


# CLUE


@pytest.mark.parametrize("case", CASES)
def test_clue_takes_the_nearest_of_centroids_weighed_by_entropy(case: str, rounds) -> None:
    round_ = rounds[case]
    picks = STRATEGIES["clue"](round_, B)
    points = round_.outputs.embedding()
    p = round_.outputs.probabilities.double()
    entropy = -(p * p.log()).sum(1)
    uniforms = round_.uniforms("clue", B)
    centroids, _, own = k_means(points.double(), round_.available, uniforms, LLOYD_ITERATIONS, mass=entropy)
    for e in range(0, round_.episodes, 3):
        rows, open_ = points[e].double().numpy().T, round_.available[e].numpy()
        for j in range(B):  # where Lloyd's iterations rest, a centroid is its members' weighted mean
            members = (own[e].numpy() == j) & open_
            expected = np.average(rows[members], 0, entropy[e].numpy()[members])
            np.testing.assert_allclose(centroids[e, :, j], expected, atol=1e-6)
        require_nearest(picks[e].tolist(), rows, centroids[e].numpy().T, open_)


def test_clue_is_kmeans_where_all_is_equally_uncertain(rounds) -> None:
    round_ = with_head(rounds["plain"], 1, 0.0)  # no evidence: each class has the same probability
    picks = STRATEGIES["clue"](round_, B)
    points, uniforms = round_.outputs.embedding(), round_.uniforms("clue", B)
    centroids, _, _ = k_means(points, round_.available, uniforms, LLOYD_ITERATIONS)
    for e in range(round_.episodes):
        require_nearest(picks[e].tolist(), points[e].numpy().T, centroids[e].numpy().T, round_.available[e].numpy())


# DropQuery


@pytest.mark.parametrize("case", CASES)
def test_dropquery_takes_the_nearest_of_centroids_of_what_dropout_changes(case: str, rounds) -> None:
    round_ = rounds[case]
    changes = dropout_changes(round_)
    points = per_episode(round_.model.inputs(), round_.episodes)
    candidates = round_.available & (changes >= 2)  # of three passes
    assert (candidates.sum(1) >= B).all(), "too few candidates for a test"
    picks = STRATEGIES["dropquery"](round_, B)
    centroids, _, _ = k_means(points, candidates, round_.uniforms("dropquery", B), LLOYD_ITERATIONS)
    for e in range(0, round_.episodes, 3):
        assert candidates[e, picks[e]].all()
        require_nearest(picks[e].tolist(), points[e].numpy().T, centroids[e].numpy().T, candidates[e].numpy())


@pytest.mark.parametrize("block", [2**24, 100, 1])
def test_changes_are_those_of_the_head_on_what_is_left(block: int, rounds, monkeypatch) -> None:
    monkeypatch.setattr(importlib.import_module("policies.strategies.dropquery"), "BLOCK", block)
    round_ = rounds["plain"]
    z, head = round_.outputs.embedding().double(), round_.model.head.double()
    units, samples = z.shape[1:]
    constant = np.arange(units) % round_.outputs.hidden.shape[2] == round_.outputs.hidden.shape[2] - 1
    width = max(block // units, 1)
    found = dropout_changes(round_)
    for e in (0, 2):
        for r in range(0, samples, 13):
            low = r // width * width
            count = 0
            for number in range(PASSES):
                size = min(width, samples - low)
                drawn = round_.uniforms(f"dropquery pass {number} from {low}", units * size)[e].view(units, size)
                kept = np.where(constant, 1.0, (drawn[:, r - low].numpy() >= DROPOUT) / (1.0 - DROPOUT))
                count += (head[e] @ (z[e, :, r] * torch.from_numpy(kept))).argmax() != (head[e] @ z[e, :, r]).argmax()
            assert found[e, r] == count


def test_dropquery_does_without_enough_candidates(rounds) -> None:
    """A head that looks at its bias alone never changes its mind: chance decides, as for any equal samples."""
    round_ = with_head(rounds["plain"], 1, 3.0)
    assert not dropout_changes(round_).any()
    picks = STRATEGIES["dropquery"](round_, B)
    assert round_.available.gather(1, picks).all()
    free = round_.available[0].nonzero()[:, 0]
    assert picks[0].max() > free[2 * B]


# FALCUN


@pytest.mark.parametrize("case", CASES)
def test_falcun_draws_by_uncertainty_and_distance_to_the_picks(case: str, rounds) -> None:
    round_ = rounds[case]
    picks, uniforms = STRATEGIES["falcun"](round_, B), round_.uniforms("falcun", B)
    for e in range(0, round_.episodes, 3):
        p = round_.outputs.probabilities[e].double().numpy().T
        top = np.sort(p, 1)
        u = 1.0 - (top[:, -1] - top[:, -2])
        left = np.flatnonzero(round_.available[e])
        taken: list[int] = []
        for j, pick in enumerate(picks[e].tolist()):
            d = np.array([min([u[x], *(np.abs(p[x] - p[q]).sum() for q in taken)]) for x in left])
            weights = (u[left] + (d - d.min()) / (d.max() - d.min())) ** 10
            share = np.concatenate([[0.0], np.cumsum(weights / weights.sum())])
            at = left.tolist().index(pick)
            assert share[at] - 1e-5 <= uniforms[e, j] <= share[at + 1] + 1e-5
            taken.append(pick)
            left = left[left != pick]


def test_relevance_is_alike_where_nothing_is_uncertain_or_apart() -> None:
    zero, open_ = torch.zeros(1, 4), torch.tensor([[True, False, True, True]])
    assert relevance(zero, zero, open_).tolist() == [[1.0, 0.0, 1.0, 1.0]]
    # Scaled over what is open: 0.2 is the least, 0.6 the largest.
    found = relevance(torch.tensor([[0.5, 0.0, 1.0, 0.0]]), torch.tensor([[0.2, 9.0, 0.4, 0.6]]), open_)
    torch.testing.assert_close(found, torch.tensor([[0.5**10, 0.0, 1.5**10, 1.0]]))
