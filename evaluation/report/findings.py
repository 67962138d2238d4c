"""What follows from the figures, in sentences: the same in the terminal, in table.md and on the page."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation import statistics
from evaluation.report.formats import p_value
from evaluation.statistics import Pair
from evaluation.summary import PRETRAINED, REFERENCE, Summary


def protocol_line(summary: Summary) -> str:
    """Seeds and labels of a comparison."""
    p, seeds = summary.protocol, summary.seeds
    labels = f"{p.initial_labels} + {p.rounds} x {p.batch_size} = {p.budget} labels"
    return f"{seeds} paired seed{'s' * (seeds != 1)}, {labels}"


def headline_pair(summary: Summary) -> Pair | None:
    """The pair with the largest area among those that the judged side is compared with; None without pairs."""
    rows = summary.judged_pairs()
    return rows[max(rows, key=lambda name: summary.strategies[name].aulc.mean)] if rows else None


def headline(summary: Summary, dataset: str) -> str:
    """One sentence: the judged policy against the strongest of the others, or the best strategy against random."""
    pair, several = headline_pair(summary), len(summary.judged_pairs()) > 1
    if pair is None:
        return f"On {dataset} there is nothing to compare: no pair with {REFERENCE} or with a policy was played."
    first, second = pair.first, pair.second
    if several and summary.judged is None:
        first += ", the best strategy,"
    elif several:
        second += ", the strongest of the others,"
    side = "above" if pair.mean >= 0 else "below"
    return f"On {dataset}, {first} is {side} {second} by {_by(pair)}: {_meaning(pair)}."


def training_gain(summary: Summary) -> str:
    """One sentence: the judged policy minus the one that ships; "" where these two were not compared."""
    pair = summary.judged and summary.pair(summary.judged, PRETRAINED)
    if not pair:
        return ""
    return f"What training added: {pair.first} minus the policy that ships is {_by(pair)}: {_meaning(pair)}."


def _by(pair: Pair) -> str:
    by = f"{100 * pair.mean:+.2f} points of AULC"
    if pair.ci95 is not None:
        by += f" [{100 * pair.ci95[0]:+.2f}, {100 * pair.ci95[1]:+.2f}]"
    return by


def _meaning(pair: Pair) -> str:
    if pair.p_holm is None:
        return f"inconclusive, since no test can decide with fewer than {statistics.LEAST_SEEDS} seeds"
    p = p_value(pair)
    p = f"p {p}" if p.startswith("<") else f"p = {p}"
    if pair.verdict == "no difference shown":
        return f"not significant, so no difference is shown ({p} after Holm's correction)"
    return f"a significant difference ({p} after Holm's correction)"


def findings(summary: Summary, brief: bool = False) -> list[str]:
    """The paired comparisons of the main table, grouped by verdict; `brief` counts them only."""
    rows, judged = summary.judged_pairs(), summary.judged
    groups = {
        "better": f"Significantly above {REFERENCE}:",
        "no difference shown": f"No difference to {REFERENCE} shown:",
        "worse": f"Significantly below {REFERENCE}:",
        "inconclusive": f"Inconclusive against {REFERENCE}:",
    }
    if judged is not None:
        groups = {
            "better": f"{judged} is significantly above",
            "no difference shown": f"No difference shown between {judged} and",
            "worse": f"{judged} is significantly below",
            "inconclusive": f"Inconclusive: {judged} against",
        }
    lines = []
    for verdict, start in groups.items():
        members = [f"{n} ({100 * r.mean:+.2f})" for n, r in rows.items() if r.verdict == verdict]
        if members:
            lines.append(f"{start} {f'{len(members)} of {len(rows)}' if brief else ', '.join(members)}.")
    return [" ".join(lines)] if brief and lines else lines


def cautions(summary: Summary) -> list[str]:
    """Warnings: what the number of seeds does not allow to claim."""
    lines = []
    if summary.seeds < statistics.LEAST_SEEDS:
        lines.append(f"Fewer than {statistics.LEAST_SEEDS} seeds: too few for any test, hence inconclusive.")
    elif summary.seeds < statistics.CLAIM_SEEDS:
        lines.append(f"Fewer than {statistics.CLAIM_SEEDS} seeds: an indication, not yet a claim.")
    seeds, comparisons = summary.seeds, len(summary.pairs)
    # The least p of an exact test is 2 / 2^seeds, and Holm multiplies the least p by the number of comparisons.
    if seeds >= statistics.LEAST_SEEDS and comparisons * 2.0 ** (1 - seeds) >= statistics.LEVEL:
        lines.append(f"Over {comparisons} comparisons, {seeds} seeds cannot show any difference as significant.")
    return lines


def training_note(summary: Summary) -> str:
    """One sentence: how many labels the judged policy's training looked at; "" without a policy."""
    used = summary.labels_used
    if used is None:
        return ""
    name, facts = next(iter(summary.policies.items()))
    # Pools that are drawn from a family have no fingerprint, and their labels cost nothing.
    generated = sum(source.get("labels", 0) for source in facts.get("trained_on", ()) if not source.get("fingerprint"))
    beside = f", and at {generated:,} of generated pools" if generated else ""
    known = dict.fromkeys(
        str(source.get("name", "?")) if source.get("fingerprint") else "generated pools"
        for source in facts.get("pretrained_on", ())
    )
    start = f" It started from a policy that was trained on {', '.join(known)}." if known else ""
    return f"Training '{name}' looked at {used - generated:,} labels{beside}.{start}"


def across_line(summaries: Sequence[Summary]) -> str:
    """One sentence: on how many data sets the judged policy is clearly above each of the others; "" without pairs."""
    better: dict[str, int] = {}
    for summary in summaries:
        for name, row in summary.judged_pairs().items():
            better[name] = better.get(name, 0) + (row.verdict == "better")
    if not better:
        return ""
    judged = summaries[0].judged
    groups = []
    for count in sorted(set(better.values()), reverse=True):
        names = ", ".join(name for name, c in better.items() if c == count)
        groups.append(f"{names} on {count} of {len(summaries)} data sets")
    start = f"Significantly above {REFERENCE}:" if judged is None else f"{judged} is significantly above"
    return f"{start} {'; '.join(groups)}."
