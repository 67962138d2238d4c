"""The tables of a report: for the terminal, as Markdown, and for the page; and the raw rounds as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from evaluation.report import findings as words
from evaluation.runs import Played
from evaluation.summary import REFERENCE, SECONDS, SEPARATOR, judged_pairs, number_of_labels

_GAP = 2  # columns between two cells of a terminal's table
_SHORTEST = 8  # characters that a name keeps at least


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """As Markdown, with its title and note."""
        lines = [f"**{self.title}**", "", f"| {' | '.join(map(_cell, self.header))} |"]
        lines += ["|---|" + "---:|" * (len(self.header) - 1)]
        lines += [f"| {' | '.join(map(_cell, row))} |" for row in self.rows]
        return "\n".join([*lines, "", *([_cell(self.note), ""] if self.note else [])])

    def text(self) -> str:
        """Aligned columns, at most `words.WIDTH` wide: names that are too long end in "…"."""
        grid = [self.header, *self.rows]
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.header))]
        space = words.WIDTH - sum(widths[1:]) - _GAP * (len(widths) - 1)
        widths[0] = min(widths[0], max(space, _SHORTEST))
        lines = []
        for row in grid:
            cells = [_short(row[0], widths[0]).ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append((" " * _GAP).join(cells).rstrip())
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join(lines)


def _cell(text: str) -> str:
    """A cell that Markdown leaves as it is: names are the user's."""
    for old, new in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(old, new)
    return text


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def overview(summary: Mapping[str, Any], names: int | None = None) -> Table:
    """The main table of a data set.

    Args:
        names: longest name of a policy in the header; None for no limit.
    """
    paired, policies, saving = judged_pairs(summary), list(summary["policies"]), summary["label_saving"]
    judged = policies[0] if policies else None
    against = f"{_short(judged, names or len(judged))} − it" if judged else f"minus {REFERENCE}"
    header = ["strategy", "AULC", "final", against, "p (Holm)", "labels", "weakest", "ms/round"]
    rows = []
    for name in summary["aulc"]:
        row = paired.get(name)
        needed = saving["strategies"][name]["labels"] if saving else None
        rows.append([
            name,
            words.points(summary["aulc"][name]),
            words.percent(summary["final_accuracy"][name]["mean"]),
            words.difference(row),
            words.p_value(row),
            "–" if not saving else f"> {summary['budget']}" if needed is None else str(needed),
            words.percent(summary["weakest_modality"][name]),
            words.milliseconds(selecting(summary, name)),
        ])  # fmt: skip
    return Table("Results", header, rows, " ".join(_legend(summary)))


def selecting(summary: Mapping[str, Any], name: str) -> float | None:
    """Seconds per round until the batch is named: inference, scoring and picking; None where none is known."""
    known = [v for k, v in summary["seconds_per_round"][name].items() if k != "train" and v is not None]
    return sum(known) if known else None


def _legend(summary: Mapping[str, Any]) -> list[str]:
    judged = next(iter(summary["policies"]), None)
    lines = [
        "Points of 100, 95 % intervals.",
        "AULC: mean test accuracy over the rounds after the first, raw, no running maximum.",
    ]
    if judged:
        lines.append(f"{judged} − it: paired difference of the AULC.")
    lines += [
        "p: exact paired sign-flip test, two-sided, corrected by Holm.",
        f"labels: at the first round whose mean accuracy reaches {REFERENCE}'s last one; > : not reached.",
        "weakest: the modality whose own head is least accurate.",
        "ms/round: inference, scoring and picking, per episode.",
    ]
    return lines


def further_pairs(summary: Mapping[str, Any]) -> Table | None:
    """Comparisons of policies after the first; None without them."""
    further = list(summary["policies"])[1:]
    rows = []
    for first in further:
        for second in summary["aulc"]:
            row = summary["paired"].get(f"{first}{SEPARATOR}{second}")
            if row:
                rows.append([f"{first} − {second}", words.difference(row), words.p_value(row), row["verdict"]])
    if not rows:
        return None
    return Table("Further policies", ["comparison", "AULC difference", "p (Holm)", "verdict"], rows)


def saving(summary: Mapping[str, Any]) -> Table | None:
    """Labels that each strategy needs; None where random was not played."""
    figures = summary["label_saving"]
    if figures is None:
        return None
    rows = []
    for name, row in figures["strategies"].items():
        if row["labels"] is None:
            rows.append([name, "not reached", "–"])
        else:
            rows.append([name, str(row["labels"]), words.signed_percent(row["saved"])])
    note = (
        f"Labels at the first round whose mean accuracy over the seeds is at least {words.percent(figures['target'])}, "
        f"{REFERENCE}'s after its last round. Saved: share of the labels that {REFERENCE} itself needs by the same "
        "rule. Raw curves: one may fall below the target again."
    )
    return Table(f"Labels to reach {REFERENCE}'s final accuracy", ["strategy", "labels", "saved"], rows, note)


def balance(summary: Mapping[str, Any]) -> Table:
    """Modalities and difficulty, means over the rounds after the first."""
    modalities = list(next(iter(summary["balance"].values())))
    header = ["strategy", *(f"head {m}" for m in modalities), "weakest", "gap"]
    header += [*(f"Shapley {m}" for m in modalities), "classes", "hard third", "soft"]
    rows = []
    for name, heads in summary["balance"].items():
        rows.append([
            name,
            *map(words.percent, heads.values()),
            words.percent(summary["weakest_modality"][name]),
            words.percent(summary["modality_gap"][name]),
            *map(words.percent, summary["shapley"][name].values()),
            words.percent(summary["class_coverage"][name]),
            words.percent(summary["hard_third"][name]["mean"]),
            words.percent(summary["soft_aulc"][name]["mean"]),
        ])  # fmt: skip
    note = (
        "Points of 100. head: accuracy of the modality's own head; gap: largest minus least; Shapley: contribution of "
        "the modality to test accuracy; classes: share of them that have a label; hard third: accuracy on the third "
        "of the test rows that a reference model found hardest; soft: mean probability of the true class."
    )
    return Table("Means over the rounds after the first", header, rows, note)


def cost(summary: Mapping[str, Any]) -> Table:
    """Time and memory."""
    header = ["strategy", "inference", "scoring", "picking", "selecting", "training", "peak memory (MB)"]
    rows = []
    for name, seconds in summary["seconds_per_round"].items():
        parts = [words.milliseconds(seconds[k]) for k in SECONDS]
        parts.insert(3, words.milliseconds(selecting(summary, name)))
        rows.append([name, *parts, words.megabytes(summary["peak_memory"][name])])
    note = (
        "Milliseconds per round and episode, medians. selecting: the sum of the three before it; training: of the task "
        "model, and measuring it. Peak memory: what selecting for all episodes of a lockstep needed above what the "
        "process held before."
    )
    return Table("Milliseconds and memory", header, rows, note)


def policies(summary: Mapping[str, Any]) -> Table | None:
    """What each policy's training took, by its card; None without a policy."""
    rows = []
    for name, card in summary["policies"].items():
        origin = ", ".join(str(s.get("name", "?")) for s in card.get("trained_on", [])) or "not stated"
        figures = [card.get(k) for k in ("labels_used", "episodes", "seed", "preset")]
        known = ["not stated" if f is None else str(f) for f in figures]
        rows.append([name, origin, *known, words.duration(card.get("training_seconds"))])
    header = ["policy", "trained on", "labels used", "episodes", "seed", "preset", "training time"]
    return Table("Training of the policies", header, rows) if rows else None


def penalty(figures: Mapping[str, Any], count: int) -> Table:
    """The penalty matrix.

    Args:
        count: number of data sets.
    """
    names = figures["strategies"]
    rows = [[name, *(f"{v:.2f}" for v in row)] for name, row in zip(names, figures["matrix"], strict=True)]
    rows.append(["average", *(f"{figures['average'][name]:.2f}" for name in names)])
    note = (
        "Row beats column: share of the learning curve on which a paired t test (two-sided, level .05) finds the row's "
        f"strategy better, summed over {count} data set{'s' * (count != 1)}. Bottom: average of the column; lower "
        "is better (Ash et al. 2020)."
    )
    return Table("Pairwise penalties", ["", *names], rows, note)


def ranks(across: Mapping[str, Any]) -> Table | None:
    """Mean ranks and verdicts; None where no strategy was played on all data sets."""
    if not across["mean_rank"]:
        return None
    average = across["penalty"]["average"] if across["penalty"] else {}
    rows = [
        [name, f"{rank:.2f}", f"{average[name]:.2f}" if name in average else "–"]
        for name, rank in sorted(across["mean_rank"].items(), key=lambda item: item[1])
    ]
    note = "Rank by AULC on each data set, 1 the largest, ties averaged. Penalty: column average of the matrix below."
    return Table("Mean rank", ["strategy", "mean rank", "penalty"], rows, note)


def differences(summaries: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """The paired differences of the main tables side by side; None without pairs."""
    columns = {name: judged_pairs(summary) for name, summary in summaries.items()}
    strategies = list(dict.fromkeys(s for rows in columns.values() for s in rows))
    if not strategies:
        return None
    policies = list(next(iter(summaries.values()))["policies"])
    marks = {"better": " ▲", "worse": " ▼", "no difference shown": "", "inconclusive": " ?"}
    rows = [
        [s, *(words.difference(c[s]) + marks[c[s]["verdict"]] if s in c else "–" for c in columns.values())]
        for s in strategies
    ]
    note = (
        "AULC in points with its 95 % interval. ▲ significantly above, ▼ below (Holm's correction within a data set), "
        "? inconclusive, no mark: no difference shown."
    )
    title = f"{policies[0]} minus each strategy" if policies else f"Each strategy minus {REFERENCE}"
    return Table(title, ["strategy", *columns], rows, note)


def text_table(summary: Mapping[str, Any]) -> str:
    """What the terminal shows of a summary, of one data set or of several; at most `words.WIDTH` columns."""
    if "datasets" not in summary:
        return _one_text(summary, summary["dataset"])
    parts = [_one_text(s, name) for name, s in summary["datasets"].items()]
    table, line = ranks(summary["across"]), words.across_line(list(summary["datasets"].values()))
    across = ["Across data sets", ""]
    if table:
        across += [table.text(), "", *words.wrapped(table.note.replace(" of the matrix below", ""))]
    return "\n\n\n".join([*parts, "\n".join([*across, *words.wrapped(line)])])


def _one_text(summary: Mapping[str, Any], name: str) -> str:
    sentences = [words.headline(summary, name), *words.cautions(summary), words.training_note(summary)]
    lines = [*words.wrapped(f"{name}: {words.protocol_line(summary)}"), "", overview(summary, 12).text(), ""]
    legend = words.wrapped(" ".join(_legend(summary)))
    return "\n".join([*lines, *legend, "", *(line for s in sentences for line in words.wrapped(s))])


def markdown(summary: Mapping[str, Any]) -> str:
    """table.md."""
    summaries = summary.get("datasets", {summary.get("dataset"): summary})
    parts: list[str] = []
    for name, s in summaries.items():
        parts += [f"## {_cell(name)}", "", f"{_cell(words.headline(s, name))} {words.protocol_line(s)}.", ""]
        parts += [
            f"{_cell(line)}\n"
            for line in (*words.findings(s), *words.cautions(s), words.training_note(s), *s["notes"])
            if line
        ]
        tables = (overview(s), further_pairs(s), saving(s), balance(s), cost(s), policies(s))
        parts += [table.markdown() for table in tables if table]
        if s["penalty"]:
            parts.append(penalty(s["penalty"], 1).markdown())
    if "across" in summary:
        parts += ["## Across data sets", "", _cell(words.across_line(list(summaries.values()))), ""]
        parts += [t.markdown() for t in (differences(summaries), ranks(summary["across"])) if t]
        if summary["across"]["penalty"]:
            parts.append(penalty(summary["across"]["penalty"], len(summaries)).markdown())
    return "\n".join(parts)


def rounds_table(played: Sequence[Played], names: Sequence[str]) -> pa.Table:
    """One row per data set, strategy, seed and round.

    `labels` is how many are labelled and `sample_ids` which of them are new: the initial ones in round 0, then the
    batch in the order of picking. What is unknown is null: seconds in round 0, modalities of other data sets.
    `peak_memory` (bytes) and `all_labels_accuracy` belong to the seed.
    """
    tables = [_rounds(p, name, n, r) for p, name in zip(played, names, strict=True) for n, r in p.runs.items()]
    return pa.concat_tables(tables, promote_options="default")


def _rounds(played: Played, dataset: str, strategy: str, r: Any) -> pa.Table:
    seeds, rounds = r.accuracy.shape
    count = seeds * rounds
    index = np.tile(np.arange(rounds), seeds)
    columns: dict[str, pa.Array] = {
        "dataset": pa.array([dataset] * count, pa.string()),
        "strategy": pa.array([strategy] * count, pa.string()),
        "seed": pa.array(np.repeat(r.seeds, rounds), pa.int64()),
        "round": pa.array(index, pa.int64()),
        "labels": pa.array(number_of_labels(played)[index], pa.int64()),
    }

    def add(name: str, values: np.ndarray) -> None:
        columns[name] = pa.array(np.ravel(values).astype(np.float64), from_pandas=True)  # NaN becomes null

    for name in ("accuracy", "soft_accuracy", "hard_accuracy", "class_coverage"):
        add(name, getattr(r, name))
    for m, modality in enumerate(played.pool.modalities):
        add(f"accuracy_{modality}", r.modality_accuracy[:, :, m])
        add(f"weight_{modality}", r.weights[:, :, m])
        add(f"shapley_{modality}", r.shapley[:, :, m])
    for kind in SECONDS:
        add(f"seconds_{kind}", getattr(r, f"seconds_{kind}"))
    for name in ("peak_memory", "all_labels_accuracy"):
        add(name, np.repeat(getattr(r, name), rounds))
    ids = [
        played.pool.ids[rows].tolist()
        for initial, picked in zip(r.initial, r.picked, strict=True)
        for rows in (initial, *picked)
    ]
    columns["sample_ids"] = pa.array(ids, pa.list_(pa.string()))
    return pa.table(columns)


def flat_rounds(table: pa.Table) -> pa.Table:
    """`rounds_table` for CSV, which has no lists: `sample_ids` as a JSON list."""
    at = table.column_names.index("sample_ids")
    texts = [json.dumps(ids, ensure_ascii=False) for ids in table.column(at).to_pylist()]
    return table.set_column(at, "sample_ids", pa.array(texts, pa.string()))
