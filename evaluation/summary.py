"""The numbers of a report: one summary per data set, and what holds across data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from evaluation import statistics
from evaluation.runs import Played, Runs

SEPARATOR = "_vs_"
SECONDS = ("inference", "scoring", "picking", "train")
REFERENCE = "random"

_FACTORS = 61  # points of a performance profile


def summarise(played: Played) -> dict[str, Any]:
    """The content of summary.json for one data set; accuracies, areas and their differences are fractions of 1.

    Means are over the seeds, and over the rounds after the first where the figure has rounds.
    """
    runs, policies = played.runs, list(played.facts["policies"])
    areas = {name: statistics.aulc(r.accuracy) for name, r in runs.items()}
    balance = {n: _by_modality(played, r.modality_accuracy[:, 1:].mean((0, 1))) for n, r in runs.items()}
    spread = {name: modality_spread(r) for name, r in runs.items()}
    first = next(iter(runs.values()))
    return {
        "dataset": played.pool.name,
        "seeds": len(first.seeds),
        "budget": played.protocol.budget,
        "aulc": {name: statistics.mean_interval(area) for name, area in areas.items()},
        "paired": statistics.compare_pairs(
            {f"{a}{SEPARATOR}{b}": areas[a] - areas[b] for a, b in _pairs(list(runs), policies)}
        ),
        "balance": balance,
        "weakest_modality": {name: min(values.values()) for name, values in balance.items()},
        "modality_gap": {name: float(gap[1:].mean()) for name, (_, gap) in spread.items()},
        "shapley": {n: _by_modality(played, r.shapley[:, 1:].mean((0, 1))) for n, r in runs.items()},
        "labels_used_to_train_policy": _labels_used(played.facts["policies"]),
        "final_accuracy": {n: statistics.mean_interval(r.accuracy[:, -1]) for n, r in runs.items()},
        "all_labels_accuracy": _all_labels(first),
        "label_saving": _label_saving(played),
        "soft_aulc": {n: statistics.mean_interval(statistics.aulc(r.soft_accuracy)) for n, r in runs.items()},
        "hard_third": {n: statistics.mean_interval(statistics.aulc(r.hard_accuracy)) for n, r in runs.items()},
        "class_coverage": {n: float(r.class_coverage[:, 1:].mean()) for n, r in runs.items()},
        "round_zero_accuracy": float(first.accuracy[:, 0].mean()),
        "seconds_per_round": {
            n: {k: _known(np.nanmedian, getattr(r, f"seconds_{k}")[:, 1:]) for k in SECONDS} for n, r in runs.items()
        },
        "peak_memory": {n: _known(np.nanmax, r.peak_memory) for n, r in runs.items()},
        "penalty": _penalty([runs]),
        **played.facts,
    }


def combine(played: Sequence[Played], summaries: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The content of summary.json for several data sets.

    Args:
        summaries: by name, unique, in the order of `played`.
    """
    return {"datasets": dict(summaries), "across": _across(played, summaries)}


def number_of_labels(played: Played) -> np.ndarray:
    """How many samples are labelled in each round, int [T + 1]."""
    p = played.protocol
    return p.initial_labels + p.batch_size * np.arange(p.rounds + 1)


def modality_spread(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Of the modalities' mean head accuracies in each round: the least, and the largest minus the least; [T + 1]."""
    mean = runs.modality_accuracy.mean(0)
    return mean.min(-1), np.ptp(mean, axis=-1)


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, with "-2", "-3", ... appended to later ones of the same name."""
    unique: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in unique:
            candidate, number = f"{name}-{number}", number + 1
        unique.append(candidate)
    return unique


def judged_pairs(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of `paired` that the main table shows, by the strategy that is not the fixed side.

    With a policy: the first one minus each other strategy. Without: each strategy minus random.
    """
    policies = list(summary["policies"])
    rows = {}
    for key, row in summary["paired"].items():
        for name in summary["aulc"]:
            if key == (f"{policies[0]}{SEPARATOR}{name}" if policies else f"{name}{SEPARATOR}{REFERENCE}"):
                rows[name] = row
    return rows


def _pairs(names: list[str], policies: list[str]) -> list[tuple[str, str]]:
    """Who is compared with whom: each policy with each strategy, and the first policy with the others.

    Without a policy, each strategy with random.
    """
    if not policies:
        return [(name, REFERENCE) for name in names if name != REFERENCE] if REFERENCE in names else []
    strategies = [name for name in names if name not in policies]
    pairs = [(policies[0], name) for name in strategies + policies[1:]]
    return pairs + [(policy, name) for policy in policies[1:] for name in strategies]


def _by_modality(played: Played, values: np.ndarray) -> dict[str, float]:
    return dict(zip(played.pool.modalities, values.tolist(), strict=True))


def _labels_used(policies: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Distinct labels that the judged policy's training looked at; None without a policy."""
    return next((card["labels_used"] for card in policies.values()), None)


def _known(reduce: Any, values: np.ndarray) -> float | None:
    """`reduce` of the values that are numbers; None where none is."""
    return None if np.isnan(values).all() else float(reduce(values))


def _all_labels(runs: Runs) -> dict[str, Any] | None:
    """The reference line; it depends on the start alone, so every strategy's runs hold the same."""
    known = runs.all_labels_accuracy[~np.isnan(runs.all_labels_accuracy)]
    return statistics.mean_interval(known) if len(known) else None


def _label_saving(played: Played) -> dict[str, Any] | None:
    """Labels to reach random's final mean accuracy, and the share of random's own need that is saved."""
    if REFERENCE not in played.runs:
        return None
    labels = number_of_labels(played)
    means = {name: r.accuracy.mean(0) for name, r in played.runs.items()}
    target = float(means[REFERENCE][-1])
    needed = {name: statistics.labels_to_reach(mean, labels, target) for name, mean in means.items()}
    most = needed[REFERENCE]
    saved = {name: None if n is None else 1 - n / most for name, n in needed.items()}
    return {"target": target, "strategies": {n: {"labels": needed[n], "saved": saved[n]} for n in needed}}


def _penalty(per_dataset: Sequence[Mapping[str, Runs]]) -> dict[str, Any] | None:
    """Penalty matrix, summed over data sets; the average of each column is over all K of its entries."""
    names = _common(per_dataset)
    matrices = [statistics.penalties([runs[name].accuracy for name in names]) for runs in per_dataset] if names else []
    if len(names) < 2 or any(m is None for m in matrices):
        return None
    total = np.sum(matrices, axis=0)
    return {
        "strategies": names,
        "matrix": total.tolist(),
        "average": dict(zip(names, total.mean(0).tolist(), strict=True)),
    }


def _common(per_dataset: Sequence[Mapping[str, Any]]) -> list[str]:
    """Strategies that were played on every data set, in the first one's order."""
    first, *others = per_dataset
    return [name for name in first if all(name in other for other in others)]


def _across(played: Sequence[Played], summaries: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    names = _common([p.runs for p in played])
    result: dict[str, Any] = {"strategies": names, "penalty": _penalty([p.runs for p in played])}
    verdicts: dict[str, dict[str, int]] = {}
    for summary in summaries.values():
        for pair, row in summary["paired"].items():
            counts = verdicts.setdefault(pair, {})
            counts[row["verdict"]] = counts.get(row["verdict"], 0) + 1
    result["verdicts"] = verdicts
    if not names:
        return result | {"mean_rank": {}, "profile": None}
    areas = np.array([[s["aulc"][name]["mean"] for name in names] for s in summaries.values()])
    return result | {
        "mean_rank": dict(zip(names, statistics.mean_ranks(areas).tolist(), strict=True)),
        "profile": _profile(played, names),
    }


def _profile(played: Sequence[Played], names: list[str]) -> dict[str, Any]:
    """Performance profile over all starts; its error is 1 - AULC, and every data set weighs the same."""
    errors = [1 - np.stack([statistics.aulc(p.runs[name].accuracy) for name in names], 1) for p in played]
    weights = np.concatenate([np.full(len(e), 1 / (len(e) * len(errors))) for e in errors])
    stacked = np.concatenate(errors).clip(0)
    best = np.maximum(stacked.min(1, keepdims=True), 1e-12)
    highest = max(1.02, float(np.quantile(stacked / best, 0.98)))
    factors = np.linspace(1, min(highest, 4.0), _FACTORS)
    share = statistics.performance_profile(stacked, factors, weights)
    return {
        "factors": factors.round(4).tolist(),
        "share": {name: row.round(4).tolist() for name, row in zip(names, share, strict=True)},
    }
