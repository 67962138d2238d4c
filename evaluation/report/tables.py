"""The tables of a report: for the terminal, as Markdown, and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.report.findings import (
    across_line,
    cautions,
    findings,
    headline,
    protocol_line,
    training_gain,
    training_note,
)
from evaluation.report.formats import (
    WIDTH,
    difference,
    duration,
    megabytes,
    milliseconds,
    p_value,
    percent,
    points,
    signed_percent,
    wrapped,
)
from evaluation.summary import REFERENCE, SECONDS, Across, Comparison, Penalty, Summary
from runtime.markdown import escape, table

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
        """The table in Markdown, with its title and note."""
        rows = (map(escape, row) for row in self.rows)
        lines = [f"**{self.title}**", "", table([*map(escape, self.header)], rows), ""]
        return "\n".join([*lines, *([escape(self.note), ""] if self.note else [])])

    def text(self) -> str:
        """Aligned columns, at most `WIDTH` wide: names that are too long end in "…"."""
        grid = [self.header, *self.rows]
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.header))]
        space = WIDTH - sum(widths[1:]) - _GAP * (len(widths) - 1)
        widths[0] = min(widths[0], max(space, _SHORTEST))
        lines = []
        for row in grid:
            cells = [_short(row[0], widths[0]).ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append((" " * _GAP).join(cells).rstrip())
        lines.insert(1, "-" * max(map(len, lines)))
        return "\n".join(lines)


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else name[: width - 1] + "…"


def overview(summary: Summary, names: int | None = None) -> Table:
    """The main table of a data set.

    Args:
        names: longest name of a policy in the header; None for no limit.
    """
    paired, judged, saving = summary.judged_pairs(), summary.judged, summary.label_saving
    against = f"minus {REFERENCE}" if judged is None else f"{_short(judged, names or len(judged))} − it"
    header = ["strategy", "AULC", "final", against, "p (Holm)", "labels", "weakest", "ms/round"]
    rows = []
    for name, figures in summary.strategies.items():
        pair = paired.get(name)
        needed = saving.strategies[name].labels if saving else None
        rows.append([
            name,
            points(figures.aulc),
            percent(figures.final_accuracy.mean),
            difference(pair),
            p_value(pair),
            "–" if not saving else f"> {summary.protocol.budget}" if needed is None else str(needed),
            percent(figures.weakest_modality),
            milliseconds(figures.seconds.selecting),
        ])  # fmt: skip
    return Table("Results", header, rows, " ".join(_legend(summary)))


def _legend(summary: Summary) -> list[str]:
    lines = [
        "Points of 100, 95 % intervals.",
        "AULC: mean test accuracy over the rounds after the first, raw, no running maximum.",
    ]
    if summary.judged is not None:
        lines.append(f"{summary.judged} − it: paired difference of the AULC.")
    lines += [
        "p: exact paired sign-flip test, two-sided, corrected by Holm.",
        f"labels: at the first round whose mean accuracy reaches {REFERENCE}'s last one; > : not reached.",
        "weakest: the modality whose own head is least accurate.",
        "ms/round: inference, scoring and picking, per episode.",
    ]
    return lines


def further_pairs(summary: Summary) -> Table | None:
    """Comparisons of policies after the first; None without them."""
    rows = [
        [f"{pair.first} − {pair.second}", difference(pair), p_value(pair), pair.verdict]
        for first in [*summary.policies][1:]
        for second in summary.strategies
        if (pair := summary.pair(first, second))
    ]
    if not rows:
        return None
    return Table("Further policies", ["comparison", "AULC difference", "p (Holm)", "verdict"], rows)


def saving(summary: Summary) -> Table | None:
    """Labels that each strategy needs; None where random was not played."""
    figures = summary.label_saving
    if figures is None:
        return None
    rows = []
    for name, need in figures.strategies.items():
        if need.labels is None or need.saved is None:
            rows.append([name, "not reached", "–"])
        else:
            rows.append([name, str(need.labels), signed_percent(need.saved)])
    note = (
        f"Labels at the first round whose mean accuracy over the seeds is at least {percent(figures.target)}, "
        f"{REFERENCE}'s after its last round. Saved: share of the labels that {REFERENCE} itself needs by the same "
        "rule. Raw curves: one may fall below the target again."
    )
    return Table(f"Labels to reach {REFERENCE}'s final accuracy", ["strategy", "labels", "saved"], rows, note)


def balance(summary: Summary) -> Table:
    """Modalities and difficulty, means over the rounds after the first."""
    modalities = list(next(iter(summary.strategies.values())).balance)
    header = ["strategy", *(f"head {m}" for m in modalities), "weakest", "gap"]
    header += [*(f"Shapley {m}" for m in modalities), "classes", "hard third", "soft"]
    rows = []
    for name, figures in summary.strategies.items():
        rows.append([
            name,
            *map(percent, figures.balance.values()),
            percent(figures.weakest_modality),
            percent(figures.modality_gap),
            *map(percent, figures.shapley.values()),
            percent(figures.class_coverage),
            percent(figures.hard_third.mean),
            percent(figures.soft_aulc.mean),
        ])  # fmt: skip
    note = (
        "Points of 100. head: accuracy of the modality's own head; gap: largest minus least; Shapley: contribution of "
        "the modality to test accuracy; classes: share of them that have a label; hard third: accuracy on the third "
        "of the test rows that a reference model found hardest; soft: mean probability of the true class."
    )
    return Table("Means over the rounds after the first", header, rows, note)


def cost(summary: Summary) -> Table:
    """The time that selecting and training take, and the memory."""
    header = ["strategy", "inference", "scoring", "picking", "selecting", "training", "peak memory (MB)"]
    rows = []
    for name, figures in summary.strategies.items():
        parts = [milliseconds(getattr(figures.seconds, kind)) for kind in (*SECONDS[:3], "selecting", *SECONDS[3:])]
        rows.append([name, *parts, megabytes(figures.peak_memory)])
    note = (
        "Milliseconds per round and episode, medians. selecting: the sum of the three before it; training: of the task "
        "model, and measuring it. Peak memory: what selecting for all episodes of a lockstep needed above what the "
        "process held before."
    )
    return Table("Milliseconds and memory", header, rows, note)


def policies(summary: Summary) -> Table | None:
    """What each policy's training took, by its card; None without a policy."""
    rows = []
    for name, card in summary.policies.items():
        origin = ", ".join(str(s.get("name", "?")) for s in card.get("trained_on", [])) or "not stated"
        figures = [card.get(k) for k in ("labels_used", "episodes", "seed", "preset")]
        known = ["not stated" if f is None else str(f) for f in figures]
        rows.append([name, origin, *known, duration(card.get("training_seconds"))])
    header = ["policy", "trained on", "labels used", "episodes", "seed", "preset", "training time"]
    return Table("Training of the policies", header, rows) if rows else None


def penalty(figures: Penalty, count: int) -> Table:
    """The penalty matrix.

    Args:
        count: number of data sets.
    """
    names = figures.strategies
    rows = [[name, *(f"{v:.2f}" for v in row)] for name, row in zip(names, figures.matrix, strict=True)]
    rows.append(["average", *(f"{figures.average[name]:.2f}" for name in names)])
    note = (
        "Row beats column: share of the learning curve on which a paired t test (two-sided, level .05) finds the row's "
        f"strategy better, summed over {count} data set{'s' * (count != 1)}. Bottom: average of the column; lower "
        "is better (Ash et al. 2020)."
    )
    return Table("Pairwise penalties", ["", *names], rows, note)


def ranks(across: Across) -> Table | None:
    """Mean ranks and verdicts; None where no strategy was played on all data sets."""
    if not across.mean_rank:
        return None
    average = across.penalty.average if across.penalty else {}
    rows = [
        [name, f"{rank:.2f}", f"{average[name]:.2f}" if name in average else "–"]
        for name, rank in sorted(across.mean_rank.items(), key=lambda item: item[1])
    ]
    note = "Rank by AULC on each data set, 1 the largest, ties averaged. Penalty: column average of the matrix below."
    return Table("Mean rank", ["strategy", "mean rank", "penalty"], rows, note)


def differences(summaries: Mapping[str, Summary]) -> Table | None:
    """The paired differences of the main tables side by side; None without pairs."""
    columns = {name: summary.judged_pairs() for name, summary in summaries.items()}
    strategies = list(dict.fromkeys(s for rows in columns.values() for s in rows))
    if not strategies:
        return None
    judged = next(iter(summaries.values())).judged
    marks = {"better": " ▲", "worse": " ▼", "no difference shown": "", "inconclusive": " ?"}
    rows = [
        [s, *(difference(c[s]) + marks[c[s].verdict] if s in c else "–" for c in columns.values())] for s in strategies
    ]
    note = (
        "AULC in points with its 95 % interval. ▲ significantly above, ▼ below (Holm's correction within a data set), "
        "? inconclusive, no mark: no difference shown."
    )
    title = f"Each strategy minus {REFERENCE}" if judged is None else f"{judged} minus each strategy"
    return Table(title, ["strategy", *columns], rows, note)


def text_table(comparison: Comparison) -> str:
    """What the terminal shows of a comparison, at most `WIDTH` columns."""
    parts = [_one_text(summary, name) for name, summary in comparison.datasets.items()]
    if comparison.across is None:
        return "\n\n\n".join(parts)
    ranked, line = ranks(comparison.across), across_line(list(comparison.datasets.values()))
    across = ["Across data sets", ""]
    if ranked:
        across += [ranked.text(), "", *wrapped(ranked.note.replace(" of the matrix below", ""))]
    return "\n\n\n".join([*parts, "\n".join([*across, *wrapped(line)])])


def _one_text(summary: Summary, name: str) -> str:
    sentences = [headline(summary, name), *cautions(summary), training_note(summary), training_gain(summary)]
    lines = [*wrapped(f"{name}: {protocol_line(summary)}"), "", overview(summary, 12).text(), ""]
    legend = wrapped(" ".join(_legend(summary)))
    return "\n".join([*lines, *legend, "", *(line for s in sentences for line in wrapped(s))])


def markdown(comparison: Comparison) -> str:
    """The content of table.md."""
    summaries, across = comparison.datasets, comparison.across
    parts = [part for name, summary in summaries.items() for part in _one_markdown(summary, name)]
    if across:
        parts += ["## Across data sets", "", escape(across_line(list(summaries.values()))), ""]
        parts += [t.markdown() for t in (differences(summaries), ranks(across)) if t]
        if across.penalty:
            parts.append(penalty(across.penalty, len(summaries)).markdown())
    return "\n".join(parts)


def _one_markdown(s: Summary, name: str) -> list[str]:
    parts = [f"## {escape(name)}", "", f"{escape(headline(s, name))} {protocol_line(s)}.", ""]
    sentences = (training_gain(s), *findings(s), *cautions(s), training_note(s), *s.facts["notes"])
    parts += [f"{escape(sentence)}\n" for sentence in sentences if sentence]
    tables = (overview(s), further_pairs(s), saving(s), balance(s), cost(s), policies(s))
    parts += [t.markdown() for t in tables if t]
    return [*parts, penalty(s.penalty, 1).markdown()] if s.penalty else parts
