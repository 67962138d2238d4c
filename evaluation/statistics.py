"""Statistics of a paired comparison: one number per seed, the same seeds for every strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

LEAST_SEEDS = 6  # 2 / 2^5 is above .05: five pairs cannot reject in a two-sided exact test
CLAIM_SEEDS = 20  # fewer seeds show, they do not prove
LEVEL = 0.05

_HALVES_UP_TO = 40  # pairs; 2^20 sums for each half then
_GRID = 10_000  # steps of the rounded differences beyond that


@dataclass(frozen=True, kw_only=True)
class MeanInterval:
    """A mean and its 95 % interval."""

    mean: float
    ci95: tuple[float, float] | None  # low, high; None for one value

    def to_json(self) -> dict[str, Any]:
        """The entry of summary.json."""
        return {"mean": self.mean, "ci95": None if self.ci95 is None else list(self.ci95)}


@dataclass(frozen=True, kw_only=True)
class Pair(MeanInterval):
    """Two strategies on the same seeds: the first one's figure minus the second one's."""

    first: str
    second: str
    p: float | None  # None with fewer than LEAST_SEEDS seeds
    p_holm: float | None
    verdict: str  # "better", "worse", "no difference shown" or "inconclusive"

    def to_json(self) -> dict[str, Any]:
        """The entry of summary.json, whose key names the two strategies."""
        return super().to_json() | {"p": self.p, "p_holm": self.p_holm, "verdict": self.verdict}


def aulc(curves: np.ndarray) -> np.ndarray:
    """Area under the learning curve: mean accuracy over the rounds after the first, t = 1 .. T.

    Rounds add equally many labels, so the mean is the normalised area, a fraction of 1. Round 0 is left out:
    all strategies share its model.

    Args:
        curves: accuracy [..., T + 1] from round 0 on.

    Returns:
        [...].
    """
    return np.asarray(curves, np.float64)[..., 1:].mean(-1)


def interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float] | None:
    """Low and high end of an interval of the mean by Student's t (Student 1908, "The probable error of a mean").

    None for one value.

    Args:
        values: [n], one per seed.
    """
    values = np.asarray(values, np.float64)
    n = len(values)
    if n < 2:
        return None
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return mean, mean
    half = float(stats.t.ppf(0.5 + confidence / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return mean - half, mean + half


def mean_interval(values: np.ndarray) -> MeanInterval:
    """Mean and interval of values [n], one per seed."""
    return MeanInterval(mean=float(np.mean(values)), ci95=interval(values))


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of the exact paired permutation test on the mean difference.

    Under the hypothesis that the two strategies are exchangeable within a seed, each difference was as likely
    to have the other sign: p is the share of the 2^n sign patterns whose sum is at least as far from 0 as the
    observed one (Fisher 1935, "The Design of Experiments", section 21). All patterns are counted: the sums of
    the two halves of the differences are listed, and for each sum of one half a binary search counts the
    partners in the other. Beyond 40 pairs the differences are rounded to 1/10,000 of the largest one and the
    sums counted by convolution; p is then an upper bound.

    Args:
        differences: [n], one per seed. Zeros stay in: they weaken neither sign (all zero gives p = 1).
    """
    d = np.abs(np.asarray(differences, np.float64))
    observed = abs(float(np.sum(differences)))
    d = d[d > 0]  # the sign of a zero changes nothing
    if len(d) == 0:
        return 1.0
    threshold = observed - 1e-9 * float(d.sum())  # sums that are equal but for rounding count as equal
    if threshold <= 0:
        return 1.0
    if len(d) > _HALVES_UP_TO:
        return _p_by_convolution(d, threshold)
    half = len(d) // 2
    left, right = _signed_sums(d[:half]), np.sort(_signed_sums(d[half:]))
    above = len(right) - np.searchsorted(right, threshold - left, side="left")
    return float(min(1.0, 2.0 * above.sum() / 2.0 ** len(d)))  # the sums lie symmetrically around 0


def _signed_sums(d: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _p_by_convolution(d: np.ndarray, threshold: float) -> float:
    unit = d.max() / _GRID
    steps = np.rint(d / unit).astype(int)
    total = int(steps.sum())
    share = np.zeros(2 * total + 1)  # of the sign patterns, by sum
    share[total] = 1.0
    for step in steps:
        moved = np.zeros_like(share)
        moved[step:] = share[: len(share) - step]
        moved[: len(share) - step] += share[step:]
        share = moved / 2
    # Rounding moves a sum by up to half a unit per pair: whatever may reach the threshold counts, so p errs upwards.
    least = int(np.ceil(threshold / unit - 0.5 * len(d)))
    return float(min(1.0, 2.0 * share[min(total + least, 2 * total) :].sum())) if least > 0 else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that control the chance of any false claim in the family (Holm 1979, "A simple
    sequentially rejective multiple test procedure"); in the order given, at most 1."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()


def compare_pairs(differences: Mapping[tuple[str, str], np.ndarray]) -> list[Pair]:
    """Judge a family of paired comparisons.

    Args:
        differences: (first, second) -> [n] differences, one per seed, in fractions of 1; positive favours the first.

    Returns:
        a pair for each, in this order. With fewer than LEAST_SEEDS seeds p and p_holm are None and the verdict is
        "inconclusive"; otherwise it is "better" or "worse" where p_holm is below LEVEL, and "no difference shown"
        elsewhere.
    """
    p = {names: sign_flip_p(d) for names, d in differences.items() if len(d) >= LEAST_SEEDS}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    pairs = []
    for (first, second), d in differences.items():
        mean, p_holm = float(np.mean(d)), adjusted.get((first, second))
        pairs.append(
            Pair(
                first=first,
                second=second,
                mean=mean,
                ci95=interval(d),
                p=p.get((first, second)),
                p_holm=p_holm,
                verdict=_verdict(mean, p_holm),
            )
        )
    return pairs


def _verdict(mean: float, p_holm: float | None) -> str:
    if p_holm is None:
        return "inconclusive"
    if p_holm >= LEVEL:
        return "no difference shown"
    return "better" if mean > 0 else "worse"


def labels_to_reach(curve: np.ndarray, labels: np.ndarray, target: float) -> int | None:
    """Labels at the first round whose accuracy is at least `target`; None where no round's is.

    Args:
        curve: mean accuracy [T + 1], raw: a later fall below the target does not count.
        labels: int [T + 1], how many are labelled.
    """
    reached = np.asarray(curve) >= target - 1e-12  # a mean of the same values in another order is as good
    return int(labels[reached.argmax()]) if reached.any() else None


def penalties(curves: Sequence[np.ndarray]) -> np.ndarray | None:
    """Pairwise penalties on one data set, as BADGE's authors count them (Ash et al. 2020, "Deep batch active
    learning by diverse, uncertain gradient lower bounds", section 4).

    At each of the L points of the curve a two-sided paired t test at the level .05 compares each two
    strategies; where i is better than j, the entry [i, j] grows by 1 / L. An entry is thus the share of the curve
    on which i beats j, and no penalty exceeds 1 per data set. The points are the rounds after the first.

    Args:
        curves: accuracy [S, T + 1] of each of the K strategies, paired by seed.

    Returns:
        [K, K], or None with fewer than two seeds, where there is no t.
    """
    a = np.stack([np.asarray(c, np.float64)[:, 1:] for c in curves])
    seeds, points = a.shape[1:]
    if seeds < 2:
        return None
    critical = stats.t.ppf(1 - LEVEL / 2, seeds - 1)
    wins = np.zeros((len(a), len(a)))
    for i, mine in enumerate(a):
        d = mine - a  # [K, S, L]
        mean, error = d.mean(1), d.std(1, ddof=1) / np.sqrt(seeds)
        # Equal differences give an error that is rounding only: any lead is then beyond every critical value.
        error[error < 1e-12] = 0.0
        wins[i] = ((mean > critical * error) & (mean > 1e-12)).sum(1)
    return wins / points


def mean_ranks(areas: np.ndarray) -> np.ndarray:
    """Mean over data sets of the rank by area, 1 the largest; equal areas share their mean rank.

    Args:
        areas: [D, K], data sets by strategies.

    Returns:
        [K].
    """
    return stats.rankdata(-np.asarray(areas, np.float64), axis=1).mean(0)


def performance_profile(errors: np.ndarray, factors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of the problems on which each strategy's error is within a factor of the best one's
    (Dolan and Moré 2002, "Benchmarking optimization software with performance profiles").

    Args:
        errors: [P, K], problems by strategies, at least 0.
        factors: [F], from 1 on.
        weights: [P], shares that add to 1.

    Returns:
        [K, F], rising along F.
    """
    errors = np.asarray(errors, np.float64)
    within = errors[:, :, None] <= factors * errors.min(1)[:, None, None] + 1e-12
    return np.tensordot(weights, within, 1)
