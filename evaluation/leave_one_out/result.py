"""What policies are worth on data that they never saw: the figures of each target, and what holds over the targets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluation import statistics
from evaluation.statistics import MeanInterval
from evaluation.summary import REFERENCE, Summary

BEST_FIXED = "best fixed"
COUNTED = ("badge", "bait", REFERENCE)  # strategies for which the targets with an interval off 0 are counted
BALANCED = ("badge", "bmmal")  # strategies whose weakest modality stands beside the learned policy's


@dataclass(frozen=True)
class Origin:
    """A target as data, and the trainings of the policy that is judged on it."""

    evaluated_on: str  # what the comparison opened
    drawn_from: str | None  # the family that this was drawn from
    policies_averaged: list[str]  # names of trainings
    labels_used: int | None


@dataclass(frozen=True)
class Target:
    """The learned policy on one target; fractions of 1."""

    aulc: MeanInterval
    learned_minus: dict[str, MeanInterval]  # by strategy, and for the best fixed one
    best_fixed: str  # the strategy of the largest area, chosen in hindsight
    weakest_modality: dict[str, float]
    label_saving: float | None  # share of the labels that random needs; None where unknown or not reached
    origin: Origin

    def to_json(self) -> dict[str, Any]:
        """The entry of leave_one_out.json."""
        return {
            "aulc": self.aulc.to_json(),
            "learned_minus": _to_json(self.learned_minus),
            "best_fixed": self.best_fixed,
            "weakest_modality": self.weakest_modality,
            "label_saving": self.label_saving,
            **asdict(self.origin),
        }


@dataclass(frozen=True)
class OffZero:
    """The numbers of targets on which an interval is above 0, and below."""

    above: int
    below: int
    targets: int


@dataclass(frozen=True)
class OverTargets:
    """Means with intervals over the targets."""

    aulc: MeanInterval
    learned_minus: dict[str, MeanInterval]
    weakest_modality: dict[str, MeanInterval]
    intervals_off_zero: dict[str, OffZero]
    median_label_saving: float | None

    def to_json(self) -> dict[str, Any]:
        """The entry of leave_one_out.json."""
        return {
            "aulc": self.aulc.to_json(),
            "learned_minus": _to_json(self.learned_minus),
            "weakest_modality": _to_json(self.weakest_modality),
            "intervals_off_zero": {name: asdict(counts) for name, counts in self.intervals_off_zero.items()},
            "median_label_saving": self.median_label_saving,
        }


@dataclass(frozen=True)
class Judged:
    """What policies are worth at one budget."""

    targets: dict[str, Target]
    over_targets: OverTargets

    def to_json(self) -> dict[str, Any]:
        """The entry of leave_one_out.json."""
        return {
            "targets": {name: target.to_json() for name, target in self.targets.items()},
            "over_targets": self.over_targets.to_json(),
        }


@dataclass(frozen=True)
class LeaveOneOut:
    """What policies are worth on data that they never saw."""

    splits: int
    training_seeds: int | None  # None with splits
    budgets: dict[str, Judged]  # by the protocol's name

    def to_json(self) -> dict[str, Any]:
        """The content of leave_one_out.json."""
        return {
            "splits": self.splits,
            "training_seeds": self.training_seeds,
            "budgets": {name: judged.to_json() for name, judged in self.budgets.items()},
        }


def judge_targets(summaries: Mapping[str, Summary], origins: Mapping[str, Origin]) -> Judged:
    """The learned policy on every target, and over the targets.

    Args:
        summaries: of a comparison by target; the first policy is the learned one, and all played the same strategies.
        origins: by target.
    """
    targets = {name: _judge(summary, origins[name]) for name, summary in summaries.items()}
    rows = list(targets.values())
    minus = {n: _over(row.learned_minus[n].mean for row in rows) for n in rows[0].learned_minus}
    over = OverTargets(
        aulc=_over(row.aulc.mean for row in rows),
        learned_minus=minus,
        weakest_modality={n: _over(row.weakest_modality[n] for row in rows) for n in rows[0].weakest_modality},
        intervals_off_zero={n: _count([row.learned_minus[n] for row in rows]) for n in COUNTED if n in minus},
        median_label_saving=_median([row.label_saving for row in rows]) if REFERENCE in minus else None,
    )
    return Judged(targets, over)


def _judge(summary: Summary, origin: Origin) -> Target:
    learned, *further = summary.policies
    pairs = {name: pair for name, pair in summary.judged_pairs().items() if name not in further}
    best = max(pairs, key=lambda name: summary.strategies[name].aulc.mean)
    minus = {name: MeanInterval(mean=pair.mean, ci95=pair.ci95) for name, pair in pairs.items()}
    shown = [learned, *(name for name in BALANCED if name in pairs)]
    return Target(
        aulc=summary.strategies[learned].aulc,
        learned_minus=minus | {BEST_FIXED: minus[best]},
        best_fixed=best,
        weakest_modality={name: summary.strategies[name].weakest_modality for name in shown},
        label_saving=summary.label_saving.strategies[learned].saved if summary.label_saving else None,
        origin=origin,
    )


def off_zero(row: MeanInterval) -> int:
    """The side of 0 on which the whole interval lies: 1 above, -1 below, 0 where it holds 0 or is unknown."""
    if row.ci95 is None:
        return 0
    low, high = row.ci95
    return int(low > 0) - int(high < 0)


def _over(values: Iterable[float]) -> MeanInterval:
    return statistics.mean_interval(np.array(list(values)))


def _count(rows: list[MeanInterval]) -> OffZero:
    sides = [off_zero(row) for row in rows]
    return OffZero(above=sides.count(1), below=sides.count(-1), targets=len(rows))


def _to_json(rows: Mapping[str, MeanInterval]) -> dict[str, Any]:
    return {name: row.to_json() for name, row in rows.items()}


def _median(savings: list[float | None]) -> float | None:
    """The median; targets on which random's accuracy is not reached are the lowest, and None stands for these."""
    median = np.median([-np.inf if saving is None else saving for saving in savings])
    return float(median) if np.isfinite(median) else None
