"""What policies are worth on data that they never saw: one row for each target, and what holds over the targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from evaluation import statistics
from evaluation.report import findings as words
from evaluation.report.tables import Table
from evaluation.summary import REFERENCE, judged_pairs

BEST_FIXED = "best fixed"
COUNTED = ("badge", REFERENCE)  # strategies for which the targets with an interval off 0 are counted
BALANCED = ("badge", "bmmal")  # strategies whose weakest modality stands beside the learned policy's


def judge_targets(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The learned policy on every target, and over the targets.

    Args:
        summaries: of a comparison by target; the first policy is the learned one, and all played the same strategies.

    Returns:
        "targets": by name "aulc", "learned_minus" (by strategy and for the best fixed one), "best_fixed" (its name),
            "weakest_modality" and "label_saving" (share of the labels that random needs; None where random was not
            played or its final accuracy is not reached).
        "over_targets": of the first three that are numbers means with an interval over the targets,
            "intervals_off_zero" and "median_label_saving". Fractions of 1.
    """
    targets = {name: _judge(summary) for name, summary in summaries.items()}
    rows = list(targets.values())
    minus = {n: _over([row["learned_minus"][n]["mean"] for row in rows]) for n in rows[0]["learned_minus"]}
    weakest = {n: _over([row["weakest_modality"][n] for row in rows]) for n in rows[0]["weakest_modality"]}
    return {
        "targets": targets,
        "over_targets": {
            "aulc": _over([row["aulc"]["mean"] for row in rows]),
            "learned_minus": minus,
            "weakest_modality": weakest,
            "intervals_off_zero": {
                name: {
                    "above": sum(_off_zero(row["learned_minus"][name]) > 0 for row in rows),
                    "below": sum(_off_zero(row["learned_minus"][name]) < 0 for row in rows),
                    "targets": len(rows),
                }
                for name in COUNTED
                if name in minus
            },
            "median_label_saving": _median([row["label_saving"] for row in rows]) if REFERENCE in minus else None,
        },
    }


def _judge(summary: Mapping[str, Any]) -> dict[str, Any]:
    learned, *further = summary["policies"]
    pairs = {name: row for name, row in judged_pairs(summary).items() if name not in further}
    best = max(pairs, key=lambda name: summary["aulc"][name]["mean"])
    minus = {name: {"mean": row["mean"], "ci95": row["ci95"]} for name, row in pairs.items()}
    saving = summary["label_saving"]
    shown = [learned, *(name for name in BALANCED if name in pairs)]
    return {
        "aulc": summary["aulc"][learned],
        "learned_minus": minus | {BEST_FIXED: minus[best]},
        "best_fixed": best,
        "weakest_modality": {name: summary["weakest_modality"][name] for name in shown},
        "label_saving": saving["strategies"][learned]["saved"] if saving else None,
    }


def _over(values: list[float]) -> dict[str, Any]:
    return statistics.mean_interval(np.array(values))


def _off_zero(row: Mapping[str, Any]) -> int:
    """1 or -1 where the whole interval is above or below 0."""
    if row["ci95"] is None:
        return 0
    low, high = row["ci95"]
    return int(low > 0) - int(high < 0)


def _median(savings: list[float | None]) -> float | None:
    """Targets on which random's accuracy is not reached are the lowest; None where the median is among them."""
    median = np.median([-np.inf if saving is None else saving for saving in savings])
    return float(median) if np.isfinite(median) else None


def markdown(result: Mapping[str, Any]) -> str:
    """leave_one_out.md.

    Args:
        result: of `judge_targets`, with "splits" and "training_seeds" of the plan, and for each target "drawn_from" and
            "evaluated_on".
    """
    parts = ["# Leave one out", "", _origin(result), ""]
    parts += [table.markdown() for table in _tables(result)]
    parts += [f"- {line}" for line in _findings(result)]
    return "\n".join(parts) + "\n"


def text(result: Mapping[str, Any]) -> str:
    """The same for a terminal, at most `words.WIDTH` columns."""
    parts = [*words.wrapped(_origin(result)), ""]
    for table in _tables(result):
        for part in _fitting(table):
            parts += [part.title, "", part.text(), ""]
        parts += [*words.wrapped(table.note), ""]
    parts += [line for finding in _findings(result) for line in words.wrapped(finding)]
    return "\n".join(parts)


def _origin(result: Mapping[str, Any]) -> str:
    count = result["splits"] or result["training_seeds"]
    how = "a random half of the sources that does not hold the target" if result["splits"] else "all the other sources"
    what = f"the average of {count} policies, each trained" if count > 1 else "one policy, trained"
    return f"No policy saw the data set that it is judged on: each target's is {what} on {how}."


def _tables(result: Mapping[str, Any]) -> list[Table]:
    targets, over = result["targets"], result["over_targets"]
    mean = f"mean of {len(targets)}"
    header = ["target", "AULC", *(f"− {name}" for name in over["learned_minus"]), BEST_FIXED]
    rows = [
        [name, words.points(row["aulc"]), *map(_difference, row["learned_minus"].values()), row["best_fixed"]]
        for name, row in targets.items()
    ]
    rows.append([mean, words.points(over["aulc"]), *map(_difference, over["learned_minus"].values()), ""])
    note = (
        "AULC of the learned policy, and its paired difference to each strategy, in points with the 95 % interval over "
        f"the seeds; last row: over the targets (Student's t; their policies share sources, so take it as "
        f"approximate). ▲ interval above 0, ▼ below. {BEST_FIXED}: the strategy of the largest mean AULC on this "
        "target among those here, chosen in hindsight, which favours it."
    )
    first = Table("Learned minus each strategy, on targets that its training never saw", header, rows, note)

    header = ["target", *(f"weakest: {name}" for name in over["weakest_modality"]), "labels saved"]
    rows = [
        [name, *map(words.percent, row["weakest_modality"].values()), _saved(row["label_saving"])]
        for name, row in targets.items()
    ]
    weakest = [words.points(row) for row in over["weakest_modality"].values()]
    rows.append([mean, *weakest, f"median {_saved(over['median_label_saving'])}"])
    note = (
        "weakest: accuracy of the modality whose own head is least accurate, mean over the rounds after the first. "
        f"labels saved: share of the labels that {REFERENCE} needs to reach its own final accuracy; "
        "–: that is not reached, or not known."
    )
    return [first, Table("Weakest modality and labels", header, rows, note)]


def _difference(row: Mapping[str, Any]) -> str:
    return words.difference(row) + {1: " ▲", 0: "", -1: " ▼"}[_off_zero(row)]


def _saved(share: float | None) -> str:
    return "–" if share is None else words.signed_percent(share)


def _findings(result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"The interval of learned minus {name} is above 0 on {counts['above']} of {counts['targets']} targets and "
        f"below 0 on {counts['below']}."
        for name, counts in result["over_targets"]["intervals_off_zero"].items()
    ]
    for name, row in result["targets"].items():
        if row["drawn_from"]:
            lines.append(f"{name} is judged on one pool of {row['drawn_from']}: {row['evaluated_on']}.")
    return lines


def _fitting(table: Table) -> list[Table]:
    """The table's columns in as many tables as it takes to stay within `words.WIDTH`, the first column in each."""
    grid = [table.header, *table.rows]
    widths = [max(len(row[i]) for row in grid) + 2 for i in range(len(table.header))]
    groups: list[list[int]] = [[0]]
    for i in range(1, len(widths)):
        if len(groups[-1]) > 1 and sum(widths[j] for j in [*groups[-1], i]) > words.WIDTH:
            groups.append([0])
        groups[-1].append(i)
    return [
        Table(
            table.title if g == 0 else f"{table.title} (continued)",
            [table.header[i] for i in group],
            [[row[i] for i in group] for row in table.rows],
        )
        for g, group in enumerate(groups)
    ]
