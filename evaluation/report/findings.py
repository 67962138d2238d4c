"""Figures and findings in words: the same in the terminal, in table.md and on the page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation import statistics
from evaluation.summary import REFERENCE, judged_pairs

WIDTH = 100  # columns of a terminal's table


def percent(value: float | None) -> str:
    """A fraction in points of 100; "–" where unknown."""
    return "–" if value is None else f"{100 * value:.1f}"


def signed_percent(value: float) -> str:
    """A share of 1 in per cent, whole and signed."""
    whole = round(100 * value)
    return f"{whole:+d} %" if whole else "0 %"


def points(row: Mapping[str, Any]) -> str:
    """Mean and half its interval in points of 100."""
    if row["ci95"] is None:
        return f"{100 * row['mean']:.2f}"
    return f"{100 * row['mean']:.2f} ± {50 * (row['ci95'][1] - row['ci95'][0]):.2f}"


def difference(row: Mapping[str, Any] | None) -> str:
    """Mean and interval in points of 100, signed."""
    if row is None:
        return ""
    text = f"{100 * row['mean']:+.2f}"
    if row["ci95"] is not None:
        text += f" [{100 * row['ci95'][0]:+.2f}, {100 * row['ci95'][1]:+.2f}]"
    return text


def p_value(row: Mapping[str, Any] | None) -> str:
    """Holm's p, or the verdict where there is no test."""
    if row is None:
        return ""
    if row["p_holm"] is None:
        return row["verdict"]
    return "< 0.0001" if row["p_holm"] < 1e-4 else f"{row['p_holm']:.4f}"


def milliseconds(seconds: float | None) -> str:
    """Three digits that count; "–" where unknown."""
    return "–" if seconds is None else f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:.0f}"


def megabytes(size: float | None) -> str:
    """Bytes as MB; "–" where unknown."""
    return "–" if size is None else f"{size / 1e6:.1f}"


def duration(seconds: float | None) -> str:
    """Seconds below two minutes, else minutes, else hours; "not stated" where unknown."""
    if seconds is None:
        return "not stated"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def protocol_line(summary: Mapping[str, Any]) -> str:
    """Seeds and labels of a comparison."""
    p, seeds = summary["protocol"], summary["seeds"]
    labels = f"{p['initial_labels']} + {p['rounds']} x {p['batch_size']} = {summary['budget']} labels"
    return f"{seeds} paired seed{'s' * (seeds != 1)}, {labels}"


def headline_pair(summary: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The strategy of the largest area among those compared, and its row; None without pairs."""
    rows = judged_pairs(summary)
    best = max(rows, key=lambda name: summary["aulc"][name]["mean"], default=None)
    return None if best is None else (best, rows[best])


def headline(summary: Mapping[str, Any], dataset: str) -> str:
    """One sentence: the judged policy against the strongest of the others, or the best strategy against random."""
    pair, rows = headline_pair(summary), judged_pairs(summary)
    if pair is None:
        return f"On {dataset} there is nothing to compare: no pair with {REFERENCE} or with a policy was played."
    best, row = pair
    policies = list(summary["policies"])
    first, second = (policies[0], best) if policies else (best, REFERENCE)
    rank = ", the strongest of the others," if policies and len(rows) > 1 else ""
    if not policies and len(rows) > 1:
        first += ", the best strategy,"
    side = "above" if row["mean"] >= 0 else "below"
    by = f"{100 * row['mean']:+.2f} points of AULC"
    if row["ci95"] is not None:
        by += f" [{100 * row['ci95'][0]:+.2f}, {100 * row['ci95'][1]:+.2f}]"
    return f"On {dataset}, {first} is {side} {second}{rank} by {by}: {_meaning(row)}."


def _meaning(row: Mapping[str, Any]) -> str:
    if row["p_holm"] is None:
        return f"inconclusive, since no test can decide with fewer than {statistics.LEAST_SEEDS} seeds"
    p = p_value(row)
    p = f"p {p}" if p.startswith("<") else f"p = {p}"
    if row["verdict"] == "no difference shown":
        return f"not significant, so no difference is shown ({p} after Holm's correction)"
    return f"a significant difference ({p} after Holm's correction)"


def findings(summary: Mapping[str, Any], brief: bool = False) -> list[str]:
    """The paired comparisons of the main table, grouped by verdict; `brief` counts them only."""
    rows, policies = judged_pairs(summary), list(summary["policies"])
    groups = {
        "better": f"{policies[0]} is significantly above" if policies else f"Significantly above {REFERENCE}:",
        "no difference shown": (
            f"No difference shown between {policies[0]} and" if policies else f"No difference to {REFERENCE} shown:"
        ),
        "worse": f"{policies[0]} is significantly below" if policies else f"Significantly below {REFERENCE}:",
        "inconclusive": f"Inconclusive: {policies[0]} against" if policies else f"Inconclusive against {REFERENCE}:",
    }
    lines = []
    for verdict, start in groups.items():
        members = [f"{n} ({100 * r['mean']:+.2f})" for n, r in rows.items() if r["verdict"] == verdict]
        if members:
            lines.append(f"{start} {f'{len(members)} of {len(rows)}' if brief else ', '.join(members)}.")
    return [" ".join(lines)] if brief and lines else lines


def cautions(summary: Mapping[str, Any]) -> list[str]:
    """Warnings: what the number of seeds does not allow to claim."""
    lines = []
    if summary["seeds"] < statistics.LEAST_SEEDS:
        lines.append(f"Fewer than {statistics.LEAST_SEEDS} seeds: too few for any test, hence inconclusive.")
    elif summary["seeds"] < statistics.CLAIM_SEEDS:
        lines.append(f"Fewer than {statistics.CLAIM_SEEDS} seeds: an indication, not yet a claim.")
    seeds, comparisons = summary["seeds"], len(summary["paired"])
    # The least p of an exact test is 2 / 2^seeds, and Holm multiplies the least p by the number of comparisons.
    if seeds >= statistics.LEAST_SEEDS and comparisons * 2.0 ** (1 - seeds) >= statistics.LEVEL:
        lines.append(f"Over {comparisons} comparisons, {seeds} seeds cannot show any difference as significant.")
    return lines


def training_note(summary: Mapping[str, Any]) -> str:
    """How many labels the judged policy's training looked at; "" without a policy."""
    used = summary["labels_used_to_train_policy"]
    if used is None:
        return ""
    name, facts = next(iter(summary["policies"].items()))
    # Pools that are drawn from a family have no fingerprint, and their labels cost nothing.
    generated = sum(source.get("labels", 0) for source in facts.get("trained_on", ()) if not source.get("fingerprint"))
    beside = f", and at {generated:,} of generated pools" if generated else ""
    return f"Training '{name}' looked at {used - generated:,} labels{beside}."


def across_line(summaries: Sequence[Mapping[str, Any]]) -> str:
    """On how many of the data sets the judged policy is significantly above each of the others; "" without pairs."""
    better: dict[str, int] = {}
    for summary in summaries:
        for name, row in judged_pairs(summary).items():
            better[name] = better.get(name, 0) + (row["verdict"] == "better")
    if not better:
        return ""
    policies = list(summaries[0]["policies"])
    groups = []
    for count in sorted(set(better.values()), reverse=True):
        names = ", ".join(name for name, c in better.items() if c == count)
        groups.append(f"{names} on {count} of {len(summaries)} data sets")
    start = f"{policies[0]} is significantly above" if policies else f"Significantly above {REFERENCE}:"
    return f"{start} {'; '.join(groups)}."


def wrapped(text: str) -> list[str]:
    """Lines of at most WIDTH columns."""
    return textwrap.wrap(text, WIDTH, break_long_words=True)
