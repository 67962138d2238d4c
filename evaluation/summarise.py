"""The figures of a comparison, computed from what was played: one summary per data set, and what holds across them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from envs.names import unique_names
from evaluation import statistics
from evaluation.runs import Played, Runs
from evaluation.statistics import MeanInterval
from evaluation.summary import (
    REFERENCE,
    SECONDS,
    Across,
    Comparison,
    LabelSaving,
    Need,
    Penalty,
    Profile,
    Seconds,
    StrategyFigures,
    Summary,
    compared_pairs,
)

_FACTORS = 61  # points of a performance profile


def summarise_all(played: Sequence[Played]) -> Comparison:
    """What a comparison found on at least one data set; a name that occurs twice gets a number."""
    names = unique_names([p.pool.name for p in played])
    summaries = {name: summarise(p) for name, p in zip(names, played, strict=True)}
    return Comparison(summaries, _across(played, list(summaries.values())) if len(played) > 1 else None)


def summarise(played: Played) -> Summary:
    """What a comparison found on one data set."""
    runs = played.runs
    areas = {name: statistics.aulc(r.accuracy) for name, r in runs.items()}
    first = next(iter(runs.values()))
    pairs = compared_pairs([*runs], [*played.facts["policies"]])
    return Summary(
        dataset=played.pool.name,
        seeds=len(first.seeds),
        protocol=played.protocol,
        strategies={name: _figures(played, r) for name, r in runs.items()},
        pairs=statistics.compare_pairs({(a, b): areas[a] - areas[b] for a, b in pairs}),
        all_labels_accuracy=_all_labels(first),
        label_saving=_label_saving(played),
        round_zero_accuracy=float(first.accuracy[:, 0].mean()),
        penalty=_penalty([runs]),
        facts=played.facts,
    )


def _figures(played: Played, runs: Runs) -> StrategyFigures:
    _, gap = modality_spread(runs)
    return StrategyFigures(
        aulc=statistics.mean_interval(statistics.aulc(runs.accuracy)),
        final_accuracy=statistics.mean_interval(runs.accuracy[:, -1]),
        soft_aulc=statistics.mean_interval(statistics.aulc(runs.soft_accuracy)),
        hard_third=statistics.mean_interval(statistics.aulc(runs.hard_accuracy)),
        balance=_by_modality(played, runs.modality_accuracy[:, 1:].mean((0, 1))),
        shapley=_by_modality(played, runs.shapley[:, 1:].mean((0, 1))),
        modality_gap=float(gap[1:].mean()),
        class_coverage=float(runs.class_coverage[:, 1:].mean()),
        seconds=Seconds(**{k: _known(np.nanmedian, getattr(runs, f"seconds_{k}")[:, 1:]) for k in SECONDS}),
        peak_memory=_known(np.nanmax, runs.peak_memory),
    )


def number_of_labels(played: Played) -> np.ndarray:
    """How many samples are labelled in each round, int [T + 1]."""
    p = played.protocol
    return p.initial_labels + p.batch_size * np.arange(p.rounds + 1)


def modality_spread(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """The least of the modalities' mean head accuracies in each round, and the largest minus the least; [T + 1]."""
    mean = runs.modality_accuracy.mean(0)
    return mean.min(-1), np.ptp(mean, axis=-1)


def _by_modality(played: Played, values: np.ndarray) -> dict[str, float]:
    return dict(zip(played.pool.modalities, values.tolist(), strict=True))


def _known(reduce: Callable[[np.ndarray], Any], values: np.ndarray) -> float | None:
    """`reduce` of the values that are numbers; None where none is."""
    return None if np.isnan(values).all() else float(reduce(values))


def _all_labels(runs: Runs) -> MeanInterval | None:
    """The reference line; it depends on the start alone, so every strategy's runs hold the same."""
    known = runs.all_labels_accuracy[~np.isnan(runs.all_labels_accuracy)]
    return statistics.mean_interval(known) if len(known) else None


def _label_saving(played: Played) -> LabelSaving | None:
    """Labels to reach random's final mean accuracy, and the share of random's own need that is saved."""
    if REFERENCE not in played.runs:
        return None
    labels = number_of_labels(played)
    means = {name: r.accuracy.mean(0) for name, r in played.runs.items()}
    target = float(means[REFERENCE][-1])
    needed = {name: statistics.labels_to_reach(mean, labels, target) for name, mean in means.items()}
    most = needed[REFERENCE]
    saved = {name: None if n is None or most is None else 1 - n / most for name, n in needed.items()}
    return LabelSaving(target, {name: Need(n, saved[name]) for name, n in needed.items()})


def _penalty(per_dataset: Sequence[Mapping[str, Runs]]) -> Penalty | None:
    """Penalty matrix, summed over data sets; the average of each column is over all K of its entries."""
    names = _common(per_dataset)
    matrices = [statistics.penalties([runs[name].accuracy for name in names]) for runs in per_dataset] if names else []
    known = [m for m in matrices if m is not None]
    if len(names) < 2 or len(known) < len(matrices):
        return None
    total = np.sum(known, axis=0)
    return Penalty(names, total.tolist(), dict(zip(names, total.mean(0).tolist(), strict=True)))


def _common(per_dataset: Sequence[Mapping[str, Any]]) -> list[str]:
    """Strategies that were played on every data set, in the first one's order."""
    first, *others = per_dataset
    return [name for name in first if all(name in other for other in others)]


def _across(played: Sequence[Played], summaries: Sequence[Summary]) -> Across:
    names = _common([p.runs for p in played])
    verdicts: dict[tuple[str, str], dict[str, int]] = {}
    for pair in (pair for summary in summaries for pair in summary.pairs):
        counts = verdicts.setdefault((pair.first, pair.second), {})
        counts[pair.verdict] = counts.get(pair.verdict, 0) + 1
    ranks = {}
    if names:
        areas = np.array([[s.strategies[name].aulc.mean for name in names] for s in summaries])
        ranks = dict(zip(names, statistics.mean_ranks(areas).tolist(), strict=True))
    return Across(
        strategies=names,
        penalty=_penalty([p.runs for p in played]),
        verdicts=verdicts,
        mean_rank=ranks,
        profile=_profile(played, names) if names else None,
    )


def _profile(played: Sequence[Played], names: list[str]) -> Profile:
    """Performance profile over all starts; its error is 1 - AULC, and every data set weighs the same."""
    errors = [1 - np.stack([statistics.aulc(p.runs[name].accuracy) for name in names], 1) for p in played]
    weights = np.concatenate([np.full(len(e), 1 / (len(e) * len(errors))) for e in errors])
    stacked = np.concatenate(errors).clip(0)
    best = np.maximum(stacked.min(1, keepdims=True), 1e-12)
    highest = max(1.02, float(np.quantile(stacked / best, 0.98)))
    factors = np.linspace(1, min(highest, 4.0), _FACTORS)
    share = statistics.performance_profile(stacked, factors, weights)
    rounded = {name: row.round(4).tolist() for name, row in zip(names, share, strict=True)}
    return Profile(factors.round(4).tolist(), rounded)
