"""The tables and sentences of leave_one_out.md, and the same for a terminal."""

from __future__ import annotations

from evaluation.leave_one_out.result import BEST_FIXED, Judged, LeaveOneOut, off_zero
from evaluation.report.formats import WIDTH, difference, percent, points, signed_percent, wrapped
from evaluation.report.tables import Table
from evaluation.statistics import MeanInterval
from evaluation.summary import REFERENCE


def markdown(result: LeaveOneOut) -> str:
    """The content of leave_one_out.md."""
    parts = ["# Leave one out", "", _origin(result), ""]
    for budget, judged in result.budgets.items():
        parts += [f"## {_labels(budget)}", ""]
        parts += [table.markdown() for table in _tables(judged)]
        parts += [*(f"- {line}" for line in _findings(judged)), ""]
    return "\n".join([*parts, *(f"- {line}" for line in _drawn(result))]).rstrip() + "\n"


def text(result: LeaveOneOut) -> str:
    """What the terminal shows, at most `WIDTH` columns."""
    parts = [*wrapped(_origin(result)), ""]
    for budget, judged in result.budgets.items():
        parts += [_labels(budget), ""]
        for table in _tables(judged):
            for part in _fitting(table):
                parts += [part.title, "", part.text(), ""]
            parts += [*wrapped(table.note), ""]
        parts += [*(line for finding in _findings(judged) for line in wrapped(finding)), ""]
    return "\n".join([*parts, *(line for drawn in _drawn(result) for line in wrapped(drawn))]).rstrip()


def _labels(budget: str) -> str:
    """A budget for people: "20+10x10" as "20 + 10 x 10 labels"."""
    return f"{budget.replace('+', ' + ').replace('x', ' x ')} labels"


def _origin(result: LeaveOneOut) -> str:
    count = result.splits or result.training_seeds or 1
    how = "a random half of the sources that does not hold the target" if result.splits else "all the other sources"
    what = f"the average of {count} policies, each trained" if count > 1 else "one policy, trained"
    return f"No policy saw the data set that it is judged on: each target's is {what} on {how}."


def _tables(result: Judged) -> list[Table]:
    targets, over = result.targets, result.over_targets
    mean = f"mean of {len(targets)}"
    header = ["target", "AULC", *(f"− {name}" for name in over.learned_minus), BEST_FIXED]
    rows = [
        [name, points(row.aulc), *map(_difference, row.learned_minus.values()), row.best_fixed]
        for name, row in targets.items()
    ]
    rows.append([mean, points(over.aulc), *map(_difference, over.learned_minus.values()), ""])
    note = (
        "AULC of the learned policy, and its paired difference to each strategy, in points with the 95 % interval over "
        f"the seeds; last row: over the targets (Student's t; their policies share sources, so take it as "
        f"approximate). ▲ interval above 0, ▼ below. {BEST_FIXED}: the strategy of the largest mean AULC on this "
        "target among those here, chosen in hindsight, which favours it."
    )
    first = Table("Learned minus each strategy, on targets that its training never saw", header, rows, note)

    header = ["target", *(f"weakest: {name}" for name in over.weakest_modality), "labels saved"]
    rows = [
        [name, *map(percent, row.weakest_modality.values()), _saved(row.label_saving)] for name, row in targets.items()
    ]
    weakest = [points(row) for row in over.weakest_modality.values()]
    rows.append([mean, *weakest, f"median {_saved(over.median_label_saving)}"])
    note = (
        "weakest: accuracy of the modality whose own head is least accurate, mean over the rounds after the first. "
        f"labels saved: share of the labels that {REFERENCE} needs to reach its own final accuracy; "
        "–: that is not reached, or not known."
    )
    return [first, Table("Weakest modality and labels", header, rows, note)]


def _difference(row: MeanInterval) -> str:
    return difference(row) + {1: " ▲", 0: "", -1: " ▼"}[off_zero(row)]


def _saved(share: float | None) -> str:
    return "–" if share is None else signed_percent(share)


def _findings(result: Judged) -> list[str]:
    return [
        f"The interval of learned minus {name} is above 0 on {counts.above} of {counts.targets} targets and "
        f"below 0 on {counts.below}."
        for name, counts in result.over_targets.intervals_off_zero.items()
    ]


def _drawn(result: LeaveOneOut) -> list[str]:
    """Which pools stand for families; every budget has the same."""
    origins = {name: target.origin for judged in result.budgets.values() for name, target in judged.targets.items()}
    return [
        f"{name} is judged on one pool of {origin.drawn_from}: {origin.evaluated_on}."
        for name, origin in origins.items()
        if origin.drawn_from
    ]


def _fitting(table: Table) -> list[Table]:
    """The table's columns in as many tables as it takes to stay within `WIDTH`, the first column in each."""
    grid = [table.header, *table.rows]
    widths = [max(len(row[i]) for row in grid) + 2 for i in range(len(table.header))]
    groups: list[list[int]] = [[0]]
    for i in range(1, len(widths)):
        if len(groups[-1]) > 1 and sum(widths[j] for j in [*groups[-1], i]) > WIDTH:
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
