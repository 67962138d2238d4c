"""Which trials no other one beats, and what each setting buys, as tables and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from scipy import stats

from envs.randomness import stream
from learners.telemetry.curves import save_picture
from runtime import markdown
from runtime.palette import BLUE, VERMILION

matplotlib.use("Agg")

_DRAWS = 1000  # resampled sets of starts
_AROUND = np.linspace(0, 2 * np.pi, 73)


def pareto_front(values: np.ndarray) -> np.ndarray:
    """Which rows of values [N, O], larger being better, no other row dominates, bool [N].

    A row dominates another if it is nowhere smaller and somewhere larger; equal rows do not dominate each other.
    """
    nowhere_smaller = (values[:, None] >= values[None]).all(2)
    somewhere_larger = (values[:, None] > values[None]).any(2)
    return ~np.any(nowhere_smaller & somewhere_larger, axis=0)


def front_shares(values: np.ndarray) -> np.ndarray:
    """In which share of resampled sets of starts each trial is on the front, [N] (bootstrap, Efron 1979).

    All trials are resampled alike, for they share their starts. What chance in training does is not in it.

    Args:
        values: [N, O, S] of N trials on S starts, larger being better.
    """
    starts = values.shape[2]
    weights = stream(0, "pareto: resampled starts").multinomial(starts, np.full(starts, 1 / starts), _DRAWS) / starts
    return np.mean([pareto_front(values @ weight) for weight in weights], axis=0)


def regions(values: np.ndarray) -> np.ndarray | None:
    """Outlines of 95 % confidence regions of the trials' two means, [N, points, 2]; None for fewer than 3 starts.

    Hotelling's T² on figures whose start's mean over the trials is replaced by the overall mean: what starts have in
    common is no reason to take two trials for equal (Cousineau 2005, with the correction of Morey 2008).

    Args:
        values: [N, 2, S] of N > 1 trials on S starts.
    """
    trials, _, starts = values.shape
    if starts < 3 or trials < 2:
        return None
    own = (values - values.mean(0)) * np.sqrt(trials / (trials - 1))
    radius = np.sqrt(2 * (starts - 1) / (starts - 2) * stats.f.ppf(0.95, 2, starts - 2))
    circle = radius * np.stack([np.cos(_AROUND), np.sin(_AROUND)])
    outlines = []
    for mean, deviations in zip(values.mean(2), own, strict=True):
        size, axes = np.linalg.eigh(np.cov(deviations) / starts)
        outlines.append(mean + ((axes * np.sqrt(size.clip(0))) @ circle).T)
    return np.array(outlines)


def choose(values: np.ndarray) -> int:
    """The row of the front nearest to the best of every objective, each scaled to 0 .. 1 over the front."""
    front = np.flatnonzero(pareto_front(values))
    low, high = values[front].min(0), values[front].max(0)
    scaled = (values[front] - low) / np.where(high > low, high - low, 1.0)
    return int(front[np.square(1 - scaled).sum(1).argmin()])


def table(trials: Sequence[Mapping[str, Any]], names: Sequence[str], objectives: Sequence[str]) -> str:
    """Markdown: a row per trial; the front and the chosen one are marked."""
    rows = []
    for trial in sorted(trials, key=lambda t: -t["objectives"][objectives[0]]):
        settings = [_short(trial["settings"][name]) for name in names]
        values = [f"{100 * trial['objectives'][name]:.2f}" for name in objectives]
        mark = "chosen" if trial["chosen"] else "front" if trial["front"] else ""
        rows.append([trial["trial"], *settings, *values, f"{100 * trial['front_share']:.0f} %", mark])
    titles = ["trial", *names, *objectives, "on the front", ""]
    return markdown.table(titles, rows, left=(0, len(titles) - 1))


def draw(trials: Sequence[Mapping[str, Any]], objectives: Sequence[str], file: Path, title: str) -> None:
    """Picture of the trials by their first two objectives, those of the front with their confidence regions.

    By number of trial where there is one objective only.
    """
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.6), constrained_layout=True)
    second = objectives[1] if len(objectives) > 1 else None
    y = [100 * t["objectives"][objectives[0]] for t in trials]
    x = [100 * t["objectives"][second] for t in trials] if second else list(range(1, len(trials) + 1))
    axis.scatter(x, y, color="#999999", label="trials")
    if second:
        outlines = regions(100 * np.array([[t["by_start"][second], t["by_start"][objectives[0]]] for t in trials]))
        for outline in [o for o, t in zip(outlines, trials, strict=True) if t["front"]] if outlines is not None else []:
            axis.plot(*outline.T, color=BLUE, alpha=0.4, linewidth=1)
    points = sorted(zip(x, y, trials, strict=True), key=lambda point: point[:2])
    front = [point for point in points if point[2]["front"]]
    line = [a for a, _, _ in front], [b for _, b, _ in front]
    axis.plot(*line, "o-", color=BLUE, label="Pareto front" if second else "best")
    chosen = next(point[:2] for point in front if point[2]["chosen"])
    axis.scatter(*chosen, s=120, facecolors="none", edgecolors=VERMILION, linewidths=2, label="chosen", zorder=3)
    for number, (a, b, trial) in enumerate(front, 1):  # their settings stand below: beside a point they would collide
        words = ", ".join(f"{name.split('.')[-1]} {_short(v)}" for name, v in trial["settings"].items())
        axis.plot([], [], " ", label=f"{number}: {words}")
        axis.annotate(str(number), (a, b), textcoords="offset points", xytext=(-12, 4), fontsize=9, color=BLUE)
    axis.set(xlabel=f"{second}, points" if second else "trial", ylabel=f"{objectives[0]}, points", title=title)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=3 if len(front) == 1 else 1)
    axis.spines[["top", "right"]].set_visible(False)
    save_picture(figure, file)
    plt.close(figure)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
