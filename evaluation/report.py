"""What a comparison leaves behind: summary.json, rounds.parquet, curves.png, table.md; and a text table."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from envs.lockstep import ProtocolConfig
from envs.pool import Pool
from evaluation import statistics
from evaluation.picture import draw_picture
from evaluation.playing import Runs

SEPARATOR = "_vs_"


def summarise(
    runs: dict[str, Runs],
    policies: list[str],
    pool: Pool,
    protocol: ProtocolConfig,
    labels_used: int | None,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """The content of summary.json; accuracies, areas and their differences are fractions of 1.

    Args:
        runs: by strategy; paired.
        policies: which of them are policies; the first is the one judged.
        labels_used: distinct labels that its training looked at; None without a policy.
        facts: further keys, for provenance.
    """
    areas = {name: statistics.aulc(r.accuracy) for name, r in runs.items()}
    modality = {name: r.modality_accuracy[:, 1:].mean((0, 1)) for name, r in runs.items()}
    balance = {n: dict(zip(pool.modalities, v.tolist(), strict=True)) for n, v in modality.items()}
    soft = {name: statistics.aulc(r.soft_accuracy) for name, r in runs.items()}
    hard = {name: statistics.aulc(r.hard_accuracy) for name, r in runs.items()}
    pairs = _pairs(list(runs), policies)
    seeds = len(next(iter(runs.values())).seeds)
    return {
        "dataset": pool.name,
        "seeds": seeds,
        "budget": protocol.budget,
        "aulc": {name: statistics.mean_interval(area) for name, area in areas.items()},
        "paired": statistics.compare_pairs({f"{a}{SEPARATOR}{b}": areas[a] - areas[b] for a, b in pairs}),
        "balance": balance,
        "weakest_modality": {name: min(values.values()) for name, values in balance.items()},
        "labels_used_to_train_policy": labels_used,
        "final_accuracy": {n: statistics.mean_interval(r.accuracy[:, -1]) for n, r in runs.items()},
        "soft_aulc": {n: statistics.mean_interval(v) for n, v in soft.items()},
        "hard_third": {n: statistics.mean_interval(v) for n, v in hard.items()},
        "class_coverage": {n: float(r.class_coverage[:, 1:].mean()) for n, r in runs.items()},
        "round_zero_accuracy": float(next(iter(runs.values())).accuracy[:, 0].mean()),
        "seconds_per_round": {
            n: {k: float(np.median(getattr(r, f"seconds_{k}")[:, 1:])) for k in ("select", "train")}
            for n, r in runs.items()
        },
        **facts,
    }


def _pairs(names: list[str], policies: list[str]) -> list[tuple[str, str]]:
    """Who is compared with whom: each policy with each strategy, and the first policy with the others.

    Without a policy, each strategy with random.
    """
    if not policies:
        return [(name, "random") for name in names if name != "random"] if "random" in names else []
    strategies = [name for name in names if name not in policies]
    pairs = [(policies[0], name) for name in strategies + policies[1:]]
    return pairs + [(policy, name) for policy in policies[1:] for name in strategies]


def write_report(
    summary: dict[str, Any], runs: dict[str, Runs], pool: Pool, protocol: ProtocolConfig, out: Path
) -> None:
    """Write the four files into `out`, each by an atomic rename; the summary last."""
    table = rounds_table(runs, pool, protocol)
    _write(out / "rounds.parquet", lambda path: pq.write_table(table, path))
    _write(out / "curves.png", lambda path: draw_picture(summary, runs, protocol, path))
    _write(out / "table.md", lambda path: path.write_text(markdown_table(summary), "utf-8"))
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    _write(out / "summary.json", lambda path: path.write_text(text, "utf-8"))


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def rounds_table(runs: dict[str, Runs], pool: Pool, protocol: ProtocolConfig) -> pa.Table:
    """One row per strategy, seed and round.

    `labels` is how many are labelled and `sample_ids` which of them are new: the initial ones in round 0,
    then the batch in the order of picking. `seconds_select` and `seconds_train` are null in round 0.
    """
    scalars = ("accuracy", "soft_accuracy", "hard_accuracy", "class_coverage")
    columns: dict[str, list] = {}

    def add(name: str, values: np.ndarray | list) -> None:
        columns.setdefault(name, []).extend(values if isinstance(values, list) else values.tolist())

    for strategy, r in runs.items():
        seeds, rounds = r.accuracy.shape
        index = np.tile(np.arange(rounds), seeds)
        add("strategy", [strategy] * (seeds * rounds))
        add("seed", np.repeat(r.seeds, rounds))
        add("round", index)
        add("labels", protocol.initial_labels + protocol.batch_size * index)
        for name in scalars:
            add(name, getattr(r, name).ravel())
        for m, modality in enumerate(pool.modalities):
            add(f"accuracy_{modality}", r.modality_accuracy[:, :, m].ravel())
            add(f"weight_{modality}", r.weights[:, :, m].ravel())
        for kind in ("select", "train"):
            seconds = getattr(r, f"seconds_{kind}").ravel()
            add(f"seconds_{kind}", [None if np.isnan(s) else float(s) for s in seconds])
        ids = [
            pool.ids[rows].tolist()
            for initial, picked in zip(r.initial, r.picked, strict=True)
            for rows in (initial, *picked)
        ]
        add("sample_ids", ids)
    types = {"strategy": pa.string(), "sample_ids": pa.list_(pa.string())}
    types |= dict.fromkeys(("seed", "round", "labels"), pa.int64())
    return pa.table({k: pa.array(v, types.get(k, pa.float64())) for k, v in columns.items()})


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(row: dict[str, Any]) -> str:
    """Mean and half its interval in points of 100."""
    if row["ci95"] is None:
        return f"{100 * row['mean']:.2f}"
    return f"{100 * row['mean']:.2f} ± {50 * (row['ci95'][1] - row['ci95'][0]):.2f}"


def _difference(row: dict[str, Any] | None) -> str:
    """Mean and interval in points of 100."""
    if row is None:
        return ""
    text = f"{100 * row['mean']:+.2f}"
    if row["ci95"] is not None:
        text += f" [{100 * row['ci95'][0]:+.2f}, {100 * row['ci95'][1]:+.2f}]"
    return text


def _p(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["p_holm"] is None:
        return row["verdict"]
    return "< 0.0001" if row["p_holm"] < 1e-4 else f"{row['p_holm']:.4f}"


def _cells(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table."""
    names, paired, policies = list(summary["aulc"]), summary["paired"], list(summary["policies"])
    judged = policies[0] if policies else None
    difference = f"{judged} - strategy" if judged else "strategy - random"
    header = ["strategy", "AULC", "final", difference, "p (Holm)", "weakest", "ms/round"]
    rows = []
    for name in names:
        row = paired.get(f"{judged}{SEPARATOR}{name}" if judged else f"{name}{SEPARATOR}random")
        rows.append(
            [
                name,
                _points(summary["aulc"][name]),
                _percent(summary["final_accuracy"][name]["mean"]),
                _difference(row),
                _p(row),
                _percent(summary["weakest_modality"][name]),
                f"{1000 * summary['seconds_per_round'][name]['select']:.2f}",
            ]
        )
    return header, rows


def _caption(summary: dict[str, Any]) -> list[str]:
    p = summary["protocol"]
    labels = f"{p['initial_labels']} + {p['rounds']} x {p['batch_size']} = {summary['budget']} labels"
    lines = [
        f"{summary['dataset']}, {summary['seeds']} paired seeds, {labels}; points of 100, 95 % intervals.",
        "AULC: mean test accuracy over the rounds after the first; weakest: the modality whose own head is",
        "least accurate; ms/round: selection, with the inference that it needs, per episode.",
        "p: exact paired sign-flip test, two-sided, corrected by Holm.",
    ]
    if summary["seeds"] < statistics.LEAST_SEEDS:
        lines.append(f"Fewer than {statistics.LEAST_SEEDS} seeds: too few for any test, hence inconclusive.")
    elif summary["seeds"] < statistics.CLAIM_SEEDS:
        lines.append(f"Fewer than {statistics.CLAIM_SEEDS} seeds: an indication, not yet a claim.")
    used = summary["labels_used_to_train_policy"]
    if used is not None:
        name = next(iter(summary["policies"]))
        lines.append(f"Training '{name}' looked at {used} labels.")
    return lines


def text_table(summary: dict[str, Any]) -> str:
    """The table for a terminal, columns aligned, at most about 100 characters wide."""
    header, rows = _cells(summary)
    grid = [header, *rows]
    widths = [max(len(row[i]) for row in grid) for i in range(len(header))]
    aligned = [f"{'<' if i in (0, 3) else '>'}{width}" for i, width in enumerate(widths)]
    lines = ["  ".join(f"{c:{a}}" for c, a in zip(row, aligned, strict=True)) for row in grid]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([line.rstrip() for line in lines] + ["", *_caption(summary)])


def markdown_table(summary: dict[str, Any]) -> str:
    """table.md: the same table, and the comparisons of further policies."""
    header, rows = _cells(summary)
    header = [h.replace(" - ", " − ") for h in header]
    lines = [f"| {' | '.join(header)} |", "|---|" + "---:|" * (len(header) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", " ".join(_caption(summary)), ""]
    further = list(summary["policies"])[1:]
    pairs = [k for k in summary["paired"] if k.split(SEPARATOR)[0] in further]
    if pairs:
        lines += ["| comparison | difference | p (Holm) | verdict |", "|---|---:|---:|---|"]
        for key in pairs:
            row = summary["paired"][key]
            name = key.replace(SEPARATOR, " − ", 1)
            lines.append(f"| {name} | {_difference(row)} | {_p(row)} | {row['verdict']} |")
        lines.append("")
    return "\n".join(lines)
