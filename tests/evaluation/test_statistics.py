"""Intervals, tests, Holm's correction, areas, and what compares strategies across data sets."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.statistics import (
    _GRID,
    LEAST_SEEDS,
    _p_by_convolution,
    aulc,
    compare_pairs,
    holm,
    interval,
    labels_to_reach,
    mean_ranks,
    penalties,
    performance_profile,
    sign_flip_p,
)

# Whole numbers of thousandths, as differences of accuracies are: ties are common.
thousandths = st.integers(-200, 200).map(lambda k: k / 1000)
differences = st.lists(thousandths, min_size=1, max_size=10).map(np.array)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def brute_force(d: np.ndarray) -> float:
    """Every sign pattern, in whole thousandths."""
    steps = np.rint(1000 * d).astype(int)
    sums = np.array(list(product((-1, 1), repeat=len(d)))) @ steps
    return float((np.abs(sums) >= abs(steps.sum())).mean())


@given(differences)
@settings(max_examples=80, deadline=None)
def test_sign_flip_counts_every_pattern(d: np.ndarray) -> None:
    assert sign_flip_p(d) == pytest.approx(brute_force(d), abs=1e-12)


@given(st.lists(thousandths, min_size=1, max_size=24).map(np.array), st.randoms())
@settings(max_examples=50, deadline=None)
def test_sign_flip_knows_neither_order_nor_side_nor_unit(d: np.ndarray, random) -> None:
    shuffled = np.array(random.sample(list(d), len(d)))
    p = sign_flip_p(d)
    assert 2.0 ** (1 - len(d)) <= p <= 1
    assert sign_flip_p(-d) == p
    assert sign_flip_p(shuffled) == pytest.approx(p, abs=1e-12)
    assert sign_flip_p(100 * d) == pytest.approx(p, abs=1e-12)


@given(st.lists(thousandths, min_size=1, max_size=12).map(np.array))
@settings(max_examples=50, deadline=None)
def test_convolution_bounds_the_enumeration_from_above(d: np.ndarray) -> None:
    d = d[d != 0]
    threshold = abs(float(d.sum())) * (1 - 1e-9)
    if threshold < 1e-9:
        return
    patterns = np.array(list(product([-1, 1], repeat=len(d)))) @ np.abs(d)
    slack = len(d) * np.abs(d).max() / _GRID  # what rounding can move

    def share(least: float) -> float:
        return float((np.abs(patterns) >= least).mean())

    counted = _p_by_convolution(np.abs(d), threshold)
    assert share(threshold) - 1e-9 <= counted <= min(1.0, share(threshold - slack)) + 1e-9


def test_many_pairs() -> None:
    rng = np.random.default_rng(0)
    null, shifted = rng.normal(0, 1, 60), rng.normal(0.5, 1, 60)
    assert sign_flip_p(null) == pytest.approx(stats.ttest_1samp(null, 0).pvalue, abs=0.01)
    assert sign_flip_p(shifted) == pytest.approx(stats.ttest_1samp(shifted, 0).pvalue, abs=0.003)


@pytest.mark.parametrize("n", [1, 6, 20, 50])
def test_no_difference_at_all(n: int) -> None:
    assert sign_flip_p(np.zeros(n)) == 1.0


def test_the_least_p_of_twenty_seeds() -> None:
    assert sign_flip_p(np.linspace(0.01, 0.02, 20)) == 2 / 2**20


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30).map(np.array))
def test_interval_contains_the_mean(values: np.ndarray) -> None:
    low, high = interval(values)
    assert low <= values.mean() <= high


def test_interval_is_students() -> None:
    values = np.array([0.7, 0.8, 0.75, 0.9])
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert interval(values) == pytest.approx(expected)
    assert interval(np.array([0.5])) is None
    assert interval(np.full(4, 0.1)) == pytest.approx((0.1, 0.1))


@given(p_values)
def test_holm_is_monotone_and_never_below_p(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(p_ <= a <= 1 for p_, a in zip(p, adjusted, strict=True))
    by_p = [adjusted[i] for i in np.argsort(p, kind="stable")]
    assert by_p == sorted(by_p)
    assert adjusted[int(np.argmin(p))] == min(1.0, len(p) * min(p))


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 12))
def test_area_of_a_constant_curve(level: float, before: float, rounds: int) -> None:
    curves = np.full((3, rounds + 1), level)
    curves[:, 0] = before  # all strategies share round 0: it does not count
    assert aulc(curves) == pytest.approx(np.full(3, level))


def test_verdicts() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.01, 12)
    pairs = compare_pairs({("up", "x"): noise + 0.05, ("x", "down"): noise - 0.05, ("a", "b"): noise - noise.mean()})
    assert [(p.first, p.second) for p in pairs] == [("up", "x"), ("x", "down"), ("a", "b")]
    assert [p.verdict for p in pairs] == ["better", "worse", "no difference shown"]
    assert [p.p_holm for p in pairs] == holm([p.p for p in pairs])
    assert list(pairs[0].to_json()) == ["mean", "ci95", "p", "p_holm", "verdict"]


def test_too_few_seeds_are_inconclusive() -> None:
    (few,) = compare_pairs({("a", "b"): np.full(LEAST_SEEDS - 1, 0.1)})
    assert (few.p, few.p_holm, few.verdict) == (None, None, "inconclusive")
    (enough,) = compare_pairs({("a", "b"): np.full(LEAST_SEEDS, 0.1)})
    assert enough.verdict == "better"
    (one,) = compare_pairs({("a", "b"): np.array([0.1])})
    assert one.ci95 is None and one.to_json()["ci95"] is None


def test_the_first_round_that_reaches_the_target_counts() -> None:
    labels = np.array([10, 15, 20, 25])
    curve = np.array([0.3, 0.5, 0.45, 0.6])  # raw: it falls below the target again
    assert labels_to_reach(curve, labels, 0.5) == 15
    assert labels_to_reach(curve, labels, 0.55) == 25
    assert labels_to_reach(curve, labels, 0.61) is None


@given(st.integers(0, 2**32 - 1), st.integers(2, 8), st.integers(1, 5), st.integers(2, 4))
@settings(max_examples=30, deadline=None)
def test_penalties_count_paired_t_tests(seed: int, seeds: int, rounds: int, strategies: int) -> None:
    rng = np.random.default_rng(seed)
    curves = 0.03 * rng.normal(size=(strategies, seeds, rounds + 1)) + 0.04 * np.arange(strategies)[:, None, None]
    matrix = penalties(curves)
    for i, j in product(range(strategies), repeat=2):
        test = stats.ttest_rel(curves[i][:, 1:], curves[j][:, 1:])
        wins = 0 if i == j else ((test.pvalue < 0.05) & (test.statistic > 0)).sum()
        assert matrix[i, j] == pytest.approx(wins / rounds)


def test_penalties_by_hand() -> None:
    flat = np.full((5, 3), 0.5)
    better = flat + np.array([0, 0, 0.1])  # above at one of two points, by the same in every seed
    assert penalties([better, flat]).tolist() == [[0, 0.5], [0, 0]]
    critical = np.array([-1, 0, 1, 2, 3]) / 10
    # For 5 repeats the critical value of the paper is 2.776: t of these differences is sqrt(2).
    assert penalties([flat + critical[:, None] * [0, 1, 0], flat]).tolist() == [[0, 0], [0, 0]]
    assert penalties([better[:1], flat[:1]]) is None


@given(st.integers(1, 5), st.integers(1, 6), st.randoms())
def test_mean_ranks_share_the_ranks(datasets: int, strategies: int, random) -> None:
    areas = np.array([[random.choice([0.1, 0.2, 0.3]) for _ in range(strategies)] for _ in range(datasets)])
    assert mean_ranks(areas).sum() == pytest.approx(strategies * (strategies + 1) / 2)
    better = areas + np.eye(1, strategies)  # the first is best everywhere
    assert mean_ranks(better)[0] == 1


def test_ties_share_their_mean_rank() -> None:
    assert mean_ranks(np.array([[0.5, 0.5, 0.1], [0.9, 0.1, 0.5]])).tolist() == [1.25, 2.25, 2.5]


def test_performance_profile_by_hand() -> None:
    errors = np.array([[0.1, 0.2], [0.4, 0.3], [0.0, 0.5]])
    share = performance_profile(errors, np.array([1.0, 1.4, 2.0]), np.array([0.25, 0.25, 0.5]))
    assert share.tolist() == [[0.75, 1.0, 1.0], [0.25, 0.25, 0.5]]  # an error of 0 is within no factor of others


@given(st.integers(0, 2**32 - 1))
def test_performance_profile_rises_and_someone_is_best(seed: int) -> None:
    errors = np.random.default_rng(seed).random((7, 4))
    share = performance_profile(errors, np.linspace(1, 3, 9), np.full(7, 1 / 7))
    assert (np.diff(share) >= 0).all()
    assert share[:, 0].sum() >= 1 - 1e-9
