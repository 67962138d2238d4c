"""Figures of balance between two modalities, and the tables and picture of `benchmarks.pitfalls`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from evaluation.report.formats import difference
from evaluation.runs import Runs
from evaluation.statistics import aulc, mean_interval
from evaluation.summary import REFERENCE
from learners.telemetry.curves import save_picture
from runtime import markdown
from runtime.palette import BLUE, GREEN, GREY, VERMILION

_LITTLE = 0.05  # of accuracy above chance: shares of less mean nothing
_POLICIES = {  # colour and words of the picture
    "shipped": (GREEN, "policy that ships"),
    "default": (BLUE, "trained, default reward"),
    "balance": (VERMILION, "trained for balance"),
}


@dataclass(frozen=True)
class Figures:
    """Of one entrant on one pitfall: for each seed means over the pools, and over the rounds after the first.

    Modalities are the strong one, then the weak one: by their own heads' accuracy with random's labels on that pool.
    """

    accuracy: np.ndarray  # [S]
    heads: np.ndarray  # [S, 2] accuracy of each modality's own head
    shapley: np.ndarray  # [S, 2] of each modality for the accuracy
    all_labels: np.ndarray  # [S] accuracy with all labels of the pool

    @staticmethod
    def of(pools: Sequence[tuple[Runs, Runs]]) -> Figures:
        """Of an entrant's runs and random's, pool by pool."""
        accuracy, heads, shapley, all_labels = [], [], [], []
        for mine, reference in pools:
            order = np.argsort(-reference.modality_accuracy[:, 1:].mean((0, 1)))
            accuracy.append(aulc(mine.accuracy))
            heads.append(mine.modality_accuracy[:, 1:].mean(1)[:, order])
            shapley.append(mine.shapley[:, 1:].mean(1)[:, order])
            all_labels.append(mine.all_labels_accuracy)
        return Figures(*(np.mean(values, axis=0) for values in (accuracy, heads, shapley, all_labels)))

    @staticmethod
    def mean(several: Sequence[Figures]) -> Figures:
        """Of policies that were trained alike."""
        return Figures(*(np.mean([getattr(f, name) for f in several], axis=0) for name in Figures.__dataclass_fields__))

    @property
    def gap(self) -> np.ndarray:
        """Strong head minus weak head, [S]."""
        return self.heads[:, 0] - self.heads[:, 1]

    @property
    def weak_share(self) -> np.ndarray:
        """The weak modality's part of what both contribute to accuracy above chance, [S]."""
        return self.shapley[:, 1] / self.shapley.sum(1)


Found = Mapping[str, Mapping[str, Figures]]  # pitfall -> entrant -> figures
Groups = Mapping[str, Sequence[str]]  # reward -> the policies that were trained with it


def grouped(figures: Mapping[str, Figures], groups: Groups) -> dict[str, Figures]:
    """The figures with one entrant for each group, in place of its members."""
    members = {name for group in groups.values() for name in group}
    own = {reward: Figures.mean([figures[name] for name in group]) for reward, group in groups.items()}
    shipped = {name: f for name, f in figures.items() if name in _POLICIES}
    return shipped | own | {name: f for name, f in figures.items() if name not in members | shipped.keys()}


def tables(found: Found, groups: Groups) -> str:
    """All tables as Markdown, in points of 100."""
    rows = {pitfall: grouped(figures, groups) for pitfall, figures in found.items()}
    parts = [
        "**Accuracy (AULC)**: random's, and what others have more",
        _against_random(rows, lambda f: f.accuracy),
        "**Accuracy of the modalities' own heads**: strong / weak",
        _table(rows, lambda f: " / ".join(f"{100 * v:.1f}" for v in f.heads.mean(0))),
        "**Gap**: strong head minus weak head; random's, and what others have more",
        _against_random(rows, lambda f: f.gap),
        "**Shapley share of the weak modality**, %",
        _table(rows, _share),
        "**With all labels**: accuracy of the same model",
        markdown.table(
            ["", *rows], [["accuracy", *(f"{100 * f[REFERENCE].all_labels.mean():.1f}" for f in rows.values())]]
        ),
        "**Trained for balance minus its twin with the default reward**, 95 % intervals (each training seed)",
        _twins(found, groups),
    ]
    return "\n\n".join(parts) + "\n"


def _table(rows: Found, cell: Callable[[Figures], str]) -> str:
    names = next(iter(rows.values()))
    return markdown.table(["", *rows], [[name, *(cell(f[name]) for f in rows.values())] for name in names])


def _against_random(rows: Found, value: Callable[[Figures], np.ndarray]) -> str:
    """A table with random's mean in its row; in others the paired difference to it, and its mean over the pitfalls."""
    lines = []
    for name in next(iter(rows.values())):
        paired = [value(f[name]) - (0 if name == REFERENCE else value(f[REFERENCE])) for f in rows.values()]
        sign = "" if name == REFERENCE else "+"
        cells = [mean_interval(p) for p in (*paired, np.mean(paired, axis=0))]
        lines.append([name, *(f"{100 * c.mean:{sign}.1f}{_mark(c.ci95) if sign else ''}" for c in cells)])
    return markdown.table(["", *rows, "mean"], lines)


def _mark(ends: tuple[float, float] | None) -> str:
    return "" if ends is None or ends[0] <= 0 <= ends[1] else " ▲" if ends[0] > 0 else " ▼"


def _share(figures: Figures) -> str:
    if figures.shapley.sum(1).mean() < _LITTLE:
        return "–"
    return f"{100 * figures.weak_share.mean():.0f}"


def _twins(found: Found, groups: Groups) -> str:
    values: dict[str, Callable[[Figures], np.ndarray]] = {
        "AULC": lambda f: f.accuracy,
        "weak head": lambda f: f.heads[:, 1],
        "gap": lambda f: f.gap,
    }
    twins = list(zip(groups["balance"], groups["default"], strict=True))
    paired = {  # [pitfalls, training seeds, S]
        name: np.array([[value(f[balance]) - value(f[default]) for balance, default in twins] for f in found.values()])
        for name, value in values.items()
    }
    lines = [[p, *(_with_each(differences[i]) for differences in paired.values())] for i, p in enumerate(found)]
    lines.append(["mean", *(_with_each(differences.mean(0)) for differences in paired.values())])
    return markdown.table(["", *values], lines)


def _with_each(differences: np.ndarray) -> str:
    """Mean and interval of differences [training seeds, S], and the mean of each training seed."""
    each = ", ".join(f"{100 * mean:+.1f}" for mean in differences.mean(1))
    return f"{difference(mean_interval(differences.mean(0)))} ({each})"


def draw(found: Found, groups: Groups, picture: Path) -> None:
    """Gap and AULC of everybody, pitfall by pitfall."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    rows = [grouped(figures, groups) for figures in found.values()]
    for name in rows[0]:
        gaps = [100 * f[name].gap.mean() for f in rows]
        gains = [100 * (f[name].accuracy - f[REFERENCE].accuracy).mean() for f in rows]
        colour, words = _POLICIES.get(name, (GREY, "random" if name == REFERENCE else "fixed strategies"))
        mark, size = ("|", 120) if name == REFERENCE else ("o", 42 if name in _POLICIES else 14)
        for axes, values in ((left, gaps), (right, gains)):
            front = 3 if name in _POLICIES else 2
            axes.scatter(
                values, range(len(rows)), s=size, color=colour, marker=mark, alpha=0.85, zorder=front, label=words
            )
    left.set_yticks(range(len(rows)), list(found))
    left.invert_yaxis()
    left.set_xlabel("gap between the modalities' heads, points")
    right.set_xlabel("AULC minus random's, points")
    right.axvline(0, color=GREY, linewidth=0.8)
    for axes in (left, right):
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    legend = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))  # one entry for all fixed strategies
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=5, frameon=False)
    save_picture(figure, picture)
