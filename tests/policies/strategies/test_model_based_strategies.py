"""BAIT against a dense computation of its criterion, GCNAL against a dense graph and autograd."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from envs.round import Round
from policies.strategies import STRATEGIES
from policies.strategies.bait import LAMBDA, Design
from policies.strategies.gcnal import Graph, _Dropout, labelled_probability

checked = settings(deadline=None, max_examples=30)
gcnal_module = importlib.import_module("policies.strategies.gcnal")


@pytest.fixture(scope="module")
def rounds(pool, missing_pool, begin) -> dict[str, Round]:
    simulation, plain = begin(pool, (0, 1), copies=2)
    later = simulation.label(plain.available.int().topk(4, dim=1).indices)
    return {"plain": plain, "missing": begin(missing_pool, (0, 1))[1], "later": later}


# BAIT


def slow_bait(round_: Round, e: int, b: int) -> list[int]:
    """Forward 2b, backward b, an inverse for every candidate of every step."""
    p = round_.outputs.probabilities[e].double().numpy().max(0)
    v = round_.outputs.embedding()[e].double().numpy() * np.sqrt(p * (1 - p))
    labelled = v[:, round_.labelled[e].numpy()]
    n = labelled.shape[1]
    pool = v @ v.T / v.shape[1]
    m = LAMBDA * np.eye(len(v)) + n / (n + b) * (labelled @ labelled.T / n)
    added = [b / (n + b) * np.outer(x, x) for x in v.T]

    def trace(matrix: np.ndarray) -> float:
        return float(np.trace(np.linalg.inv(matrix) @ pool))

    open_ = np.flatnonzero(round_.available[e]).tolist()
    picks: list[int] = []
    for _ in range(2 * b):
        best = min(open_, key=lambda r: trace(m + added[r]))
        open_.remove(best)
        picks.append(best)
        m = m + added[best]
    for _ in range(b):
        worst = min(picks, key=lambda r: trace(m - added[r]))
        picks.remove(worst)
        m = m - added[worst]
    return picks


@pytest.mark.parametrize("case", ["plain", "missing", "later"])
def test_bait_makes_the_greedy_steps_of_a_dense_computation(case: str, rounds) -> None:
    round_ = rounds[case]
    picks = STRATEGIES["bait"](round_, 4)
    for e in range(0, round_.episodes, 3):
        assert picks[e].tolist() == slow_bait(round_, e, 4)


@given(st.integers(0, 10_000), st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True))
@checked
def test_rank_one_updates_agree_with_inverses(seed: int, order: list[int]) -> None:
    """Add some samples, then remove them again: gains are exact all the way, and M comes back."""
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(size=(2, 5, 10)))
    fisher = points @ points.mT / 10
    m = torch.eye(5, dtype=torch.float64).repeat(2, 1, 1)
    design = Design(points, torch.linalg.inv(m), torch.linalg.inv(m) @ fisher @ torch.linalg.inv(m))
    for sign, rows in ((1.0, order), (-1.0, order[::-1])):
        for r in rows:
            traces = [_trace(m + sign * points[:, :, [i]] @ points[:, :, [i]].mT, fisher) for i in range(10)]
            if sign > 0:
                gain = _trace(m, fisher)[:, None] - torch.stack(traces, 1)
                torch.testing.assert_close(design.gain(1.0), gain)
            else:
                torch.testing.assert_close(design.gain(-1.0)[:, r], traces[r] - _trace(m, fisher))
            m = m + sign * points[:, :, [r]] @ points[:, :, [r]].mT
            design.update(torch.tensor([r, r]), sign)
    torch.testing.assert_close(design.inverse, torch.linalg.inv(m))


def _trace(m: Tensor, fisher: Tensor) -> Tensor:
    return (torch.linalg.inv(m) @ fisher).diagonal(dim1=1, dim2=2).sum(1)


# GCNAL


def dense_adjacency(x: Tensor) -> Tensor:
    """The adjacency of one episode as it is defined, [n, n], from unit columns [D, n]."""
    a = x.T @ x - torch.eye(x.shape[1], dtype=x.dtype)
    sums = a.sum(0)
    return a * torch.where(sums > 1e-6, 1.0 / sums, 0.0) + torch.eye(x.shape[1], dtype=x.dtype)


@given(st.integers(0, 10_000))
@checked
def test_the_graph_is_the_dense_adjacency(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(np.maximum(rng.normal(size=(2, 4, 9)), 0.0))
    x[:, 0] += 0.01
    x[:, :, 0] = 0.0
    x[:, -1] = 0.0
    x[:, -1, 0] = 1.0  # node 0 is like no other
    graph = Graph(torch.nn.functional.normalize(x, dim=1))
    h = torch.from_numpy(rng.normal(size=(2, 3, 9)))
    for e in range(2):
        a = dense_adjacency(graph.x[e])
        torch.testing.assert_close(graph.spread(h)[e], (a @ h[e].T).T)
        torch.testing.assert_close(graph.collect(h)[e], (a.T @ h[e].T).T)
    assert torch.equal(graph.spread(h)[:, :, 0], h[:, :, 0])


def slow_training(x: Tensor, unlabelled: int, parameters: list[Tensor], masks: list[Tensor]) -> Tensor:
    """One episode with a dense adjacency, autograd and the loss as it is defined; [n] scores."""
    a = dense_adjacency(x)
    w, bias, v, c = (p.clone().requires_grad_() for p in parameters)
    optimiser = torch.optim.Adam([w, bias, v, c], lr=1e-3, weight_decay=5e-4)

    def score(mask: Tensor | float) -> Tensor:
        hidden = torch.relu(a @ (x.T @ w.T) + bias) * mask
        return torch.sigmoid(a @ (hidden @ v) + c)

    for mask in masks:
        s = score(mask.T)
        loss = -s[unlabelled:].log().mean() - 1.2 * (1.0 - s[:unlabelled]).log().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return score(1.0).detach()


@pytest.mark.parametrize("case", ["plain", "missing"])
def test_training_is_that_of_autograd(case: str, rounds, monkeypatch) -> None:
    monkeypatch.setattr(gcnal_module, "EPOCHS", 12)
    round_ = rounds[case]
    unlabelled = 40
    positions = round_.available.int().topk(unlabelled, dim=1).indices
    nodes = torch.cat([positions, round_.labelled], 1)
    graph = Graph(torch.nn.functional.normalize(round_.outputs_at(nodes).embedding().double(), dim=1))
    scores = labelled_probability(graph, unlabelled, round_)
    width, n = graph.x.shape[1] + 1, nodes.shape[1]
    size = -(-(128 * width + 129) // 64) * 64
    drawn = round_.uniforms("gcnal", size) * 2.0 - 1.0
    dropout = _Dropout(round_, (128, n), graph.x)
    masks = [dropout.draw().clone() for _ in range(12)]
    for e in range(round_.episodes):
        first = drawn[e, : 128 * width].view(128, width) / 128**0.5
        parameters = [first[:, :-1], first[:, -1], drawn[e, 128 * width :][:128], drawn[e, 128 * width + 128]]
        expected = slow_training(graph.x[e], unlabelled, parameters, [m[e] for m in masks])
        torch.testing.assert_close(scores[e], expected, atol=1e-9, rtol=1e-7)


def test_dropout_drops_three_tenths_and_is_shared_by_copies(rounds) -> None:
    dropout = _Dropout(rounds["plain"], (128, 200), torch.zeros(1))
    first, second = dropout.draw().clone(), dropout.draw().clone()
    assert first.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert (first == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert not torch.equal(first, second)


def test_gcnal_learns_and_takes_scores_near_the_margin(rounds, monkeypatch) -> None:
    seen = {}

    def watched(graph: Graph, unlabelled: int, round_: Round) -> Tensor:
        seen["scores"], seen["unlabelled"] = labelled_probability(graph, unlabelled, round_), unlabelled
        return seen["scores"]

    monkeypatch.setattr(gcnal_module, "labelled_probability", watched)
    round_ = rounds["later"]
    picks = STRATEGIES["gcnal"](round_, 5)
    scores, unlabelled = seen["scores"], seen["unlabelled"]
    assert (scores[:, unlabelled:].mean(1) > scores[:, :unlabelled].mean(1) + 0.1).all()
    for e in range(round_.episodes):
        open_ = np.flatnonzero(round_.available[e])
        distance = np.abs(scores[e, :unlabelled].numpy() - 0.1)
        assert picks[e].tolist() == open_[np.argsort(distance)[:5]].tolist()


def test_a_large_pool_is_represented_by_a_random_subset(rounds, monkeypatch) -> None:
    monkeypatch.setattr(gcnal_module, "SUBSET", 10)
    monkeypatch.setattr(gcnal_module, "EPOCHS", 2)
    round_ = rounds["plain"]
    keys = round_.uniforms("gcnal subset", round_.available.shape[1]).masked_fill(~round_.available, -1.0)
    subset = keys.topk(10, dim=1).indices
    picks = STRATEGIES["gcnal"](round_, 4)
    assert all(set(p) <= set(s) for p, s in zip(picks.tolist(), subset.tolist(), strict=True))
    other = STRATEGIES["gcnal"](dataclasses.replace(round_, index=1), 4)
    assert not torch.equal(picks, other)
    assert STRATEGIES["gcnal"](round_, 15).shape == (round_.episodes, 15)  # a batch above the cap
