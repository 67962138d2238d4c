"""Strategies that cover the pool (MaxHerding, ProbCover, Uncertainty Herding), each against a slow reference."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.round import Round, Stopwatch
from policies.strategies import STRATEGIES
from policies.strategies.clustering import Clusters, clusters_of
from policies.strategies.coverage import HAIR, IMPURE, Coverage, ball, gaussian, herd, pure_radius, unit_inputs
from policies.strategies.uherding import TEMPERATURES, label_radius, temperature, uncertainty
from tests.support.rounds import CASES

checked = settings(deadline=None, max_examples=40)
coverage_module = importlib.import_module("policies.strategies.coverage")
B = 12


def unit_rows(round_: Round, e: int) -> np.ndarray:
    """Inputs of length 1, [P, D], in double precision."""
    inputs = round_.model.inputs()
    x = inputs[e // (round_.episodes // len(inputs))].double().numpy().T
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def distances(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows[:, None] - rows, axis=2)


def covered(kernel: np.ndarray, weights: np.ndarray, chosen: list[int]) -> float:
    """The objective itself, of the whole set."""
    return float((weights * kernel[chosen].max(0)).sum())


def require_greedy(round_: Round, e: int, picks: list[int], kernel: np.ndarray, weights: np.ndarray) -> None:
    """Each pick must add as much to the objective as any other sample could."""
    chosen = round_.labelled[e].tolist()
    free = set(np.flatnonzero(round_.available[e]))
    for pick in picks:
        reached = {x: covered(kernel, weights, [*chosen, x]) for x in free}
        assert reached[pick] == pytest.approx(max(reached.values()), rel=1e-5)
        chosen.append(pick)
        free.remove(pick)


@pytest.mark.parametrize("rows", [64, 7, 1])
@pytest.mark.parametrize("case", CASES)
def test_maxherding_adds_the_most_coverage(case: str, rows: int, rounds, monkeypatch) -> None:
    monkeypatch.setattr(coverage_module, "ROWS", rows)
    round_ = rounds[case]
    picks = STRATEGIES["maxherding"](round_, B)
    for e in range(0, round_.episodes, 3):
        kernel = np.exp(-(distances(unit_rows(round_, e)) ** 2))
        require_greedy(round_, e, picks[e].tolist(), kernel, np.ones(len(kernel)))


@pytest.mark.parametrize("times", [1.0, 3.0])
@pytest.mark.parametrize("case", CASES)
def test_probcover_covers_the_most_new_samples(case: str, times: float, rounds, monkeypatch) -> None:
    """Also with larger balls, for on some pools the published radius hardly reaches another sample."""
    monkeypatch.setattr(coverage_module, "pure_radius", lambda *of: times * pure_radius(*of))
    round_ = rounds[case]
    picks = STRATEGIES["probcover"](round_, B)
    draws = dataclasses.replace(round_, index=0).uniforms("probcover", round_.num_classes)
    for e in range(0, round_.episodes, 3):
        rows = unit_rows(round_, e)
        start = e * len(round_.model.inputs()) // round_.episodes
        points = unit_inputs(round_)[start : start + 1]  # single precision: other roundings may mean other clusters
        radius = times * pure_radius(points, clusters_of(points, draws[e : e + 1])).item()
        inside = (distances(rows) < radius).astype(float)
        assert times == 1.0 or inside.sum(1).max() > 3, "the balls are too small for a test"
        require_greedy(round_, e, picks[e].tolist(), inside, np.ones(len(rows)))


def test_probcover_keeps_its_radius_over_the_episode_and_decides_ties_by_chance(rounds, monkeypatch) -> None:
    radii = []

    def record(*args) -> torch.Tensor:
        radii.append(pure_radius(*args))
        return torch.full_like(radii[-1], 1e-3)  # every ball holds its own sample alone

    monkeypatch.setattr(coverage_module, "pure_radius", record)
    picks = {case: STRATEGIES["probcover"](rounds[case], B)[0].tolist() for case in ("plain", "later")}
    assert torch.equal(*radii)
    assert picks["plain"] != sorted(picks["plain"])
    free = rounds["plain"].available[0].nonzero()[:, 0]
    assert max(picks["plain"]) > free[2 * B]


@given(st.integers(0, 10_000), st.integers(2, 5))
@checked
def test_the_radius_is_the_largest_that_is_pure(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(60, 3)) + 4.0 * rng.normal(size=(count, 3))[rng.integers(0, count, 60)]
    cluster = rng.integers(0, count, 60)
    cluster[:count] = np.arange(count)
    points = torch.from_numpy(rows.T.copy())[None]
    radius = pure_radius(points, Clusters(torch.from_numpy(cluster)[None], count)).item()

    def impure(r: float) -> float:
        other = cluster[:, None] != cluster
        return float(((distances(rows) < r) & other).any(1).mean())

    assert impure(radius) <= IMPURE
    assert impure(radius * (1.0 + 2.0 * HAIR)) > IMPURE


def test_a_pool_of_one_cluster_has_one_ball(rounds) -> None:
    points = torch.zeros(1, 3, 20)
    assert pure_radius(points, Clusters(torch.zeros(1, 20, dtype=torch.int64), 1)).isinf().all()


# What the greedy search leaves out


@given(
    st.integers(0, 10_000),
    st.sampled_from([gaussian, ball]),
    st.sampled_from([1, 3, 64]),
    st.floats(0.05, 3.0),
)
@checked
def test_lazy_picks_are_those_of_all_gains(seed: int, kernel: Callable, rows: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(size=(2, 2, 40)) / radius)
    weights = torch.from_numpy(rng.random((2, 40)))
    ties = torch.from_numpy(1e-6 * rng.random((2, 40)))
    labelled = torch.from_numpy(np.stack([rng.choice(40, 3, replace=False) for _ in range(2)]))
    available = torch.ones(2, 40, dtype=torch.bool).scatter_(1, labelled, False)
    round_ = FakeRound(labelled, available)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage_module, "ROWS", rows)
        picks = herd(round_, Coverage(round_, points, kernel, weights), ties, 10)  # type: ignore[arg-type]
    for e in range(2):
        k = kernel(torch.from_numpy(distances(points[e].numpy().T) ** 2)).numpy()
        best, free = k[labelled[e]].max(0), available[e].numpy().copy()
        for pick in picks[e].tolist():
            gain = (weights[e].numpy() * np.maximum(k - best, 0.0)).sum(1) + ties[e].numpy()
            gain[~free] = -1.0
            assert gain[pick] == pytest.approx(gain.max(), abs=1e-10)
            best, free[pick] = np.maximum(best, k[pick]), False


@dataclasses.dataclass
class FakeRound:
    """As much of a round as the greedy search looks at."""

    labelled: torch.Tensor
    available: torch.Tensor
    stopwatch = Stopwatch()


# Uncertainty Herding


@pytest.mark.parametrize("case", CASES)
def test_uherding_adds_the_most_weighted_coverage(case: str, rounds) -> None:
    round_ = rounds[case]
    picks = STRATEGIES["uherding"](round_, B)
    at = temperature(round_)
    for e in range(0, round_.episodes, 3):
        apart = distances(unit_rows(round_, e))
        labelled = round_.labelled[e].numpy()
        radius = min(apart[i, j] for i in labelled for j in labelled if i != j)
        logits = round_.outputs.logits[e].double().numpy() / at[e].item()
        p = np.sort(np.exp(logits) / np.exp(logits).sum(0), 0)
        require_greedy(round_, e, picks[e].tolist(), np.exp(-((apart / radius) ** 2)), 1.0 - (p[-1] - p[-2]))


def test_uherding_is_maxherding_where_all_is_equally_uncertain(rounds, monkeypatch) -> None:
    module = importlib.import_module("policies.strategies.uherding")
    monkeypatch.setattr(module, "uncertainty", lambda logits, _: torch.ones_like(logits[:, 0]))
    monkeypatch.setattr(module, "label_radius", lambda points, _: torch.ones(len(points)))
    for case in CASES:
        assert torch.equal(STRATEGIES["uherding"](rounds[case], B), STRATEGIES["maxherding"](rounds[case], B))


def test_uherding_is_margin_where_the_radius_is_nothing(rounds, monkeypatch) -> None:
    """A kernel that is 0 beyond a sample itself leaves the uncertainty alone."""
    module = importlib.import_module("policies.strategies.uherding")
    monkeypatch.setattr(module, "label_radius", lambda points, _: torch.full((len(points),), 1e-3))
    monkeypatch.setattr(module, "temperature", lambda round_: torch.ones(round_.episodes))
    for case in CASES:
        picks = STRATEGIES["uherding"](rounds[case], B), STRATEGIES["margin"](rounds[case], B)
        assert torch.equal(*(p.sort(1).values for p in picks))


@pytest.mark.parametrize("case", CASES)
def test_the_temperature_is_the_one_calibrated_best_on_the_last_labels(case: str, rounds) -> None:
    round_ = rounds[case]
    first = round_.labelled.shape[1] - int(0.3 * round_.labelled.shape[1])
    model = round_.model.refitted(first=first)
    found = temperature(round_)
    for e in range(0, round_.episodes, 3):
        rows, labels = round_.labelled[e, first:], round_.labels[e, first:].numpy()
        logits = model.outputs().logits[e, :, rows].double().numpy()

        def error(t: float, logits=logits, labels=labels) -> float:
            p = np.exp(logits / t) / np.exp(logits / t).sum(0)
            top, right = p.max(0), p.argmax(0) == labels
            bins = np.minimum((top * 15).astype(int), 14)
            return sum(abs((top[bins == b] - right[bins == b]).sum()) for b in set(bins)) / len(labels)

        assert error(found[e].item()) == pytest.approx(min(map(error, TEMPERATURES)), abs=1e-5)


def test_overconfident_models_get_a_high_temperature(rounds) -> None:
    """Sharper logits, the same answers: the temperature grows with them, so the uncertainty stays."""
    logits = torch.tensor([[[4.0, 1.0], [0.0, 0.5]]])
    torch.testing.assert_close(uncertainty(3.0 * logits, torch.tensor([3.0])), uncertainty(logits, torch.ones(1)))
    hot, cold = uncertainty(logits, torch.tensor([19.0])), uncertainty(logits, torch.ones(1))
    assert (hot > cold).all() and hot.std() < cold.std()


def test_one_label_leaves_the_temperature_at_one(begin, pool) -> None:
    assert temperature(begin(pool, initial_labels=1)[1]).tolist() == [1.0]


def test_the_radius_shrinks_as_labels_get_denser_and_copies_do_not_count() -> None:
    points = torch.tensor([[[0.0, 0.0, 1.0, 1.2, 5.0]]])
    assert label_radius(points, torch.tensor([[0, 1, 4]])).item() == 5.0
    assert label_radius(points, torch.tensor([[0, 1, 2, 4]])).item() == 1.0
    assert label_radius(points, torch.tensor([[0, 1, 2, 3, 4]])).item() == pytest.approx(0.2)
    assert label_radius(points, torch.tensor([[0, 1]])).item() == 1.0  # copies alone
