"""Learning curves as pictures: of training, over episodes; of a policy, over labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from envs.files import new_file
from runtime.palette import GREY, OKABE_ITO


def training_curve(history: Sequence[Mapping[str, Any]], title: str, played: str) -> Figure:
    """The policy's AULC minus each paired baseline's, over episodes.

    Args:
        history: rows of `RunFolder.read_history`, with `episodes` and `aulc_minus/<strategy>` in fractions.
        played: what was measured on what, for the small print.
    """
    figure, axis = _figure()
    names = sorted({k for row in history for k in row if k.startswith("aulc_minus/")})
    for name, colour in zip(names, OKABE_ITO, strict=False):
        rows = [row for row in history if name in row]  # pools drawn from families have no baselines
        episodes, values = [row["episodes"] for row in rows], 100 * np.array([row[name] for row in rows])
        smooth = [values[max(0, i - 4) : i + 1].mean() for i in range(len(values))]
        axis.plot(episodes, values, ".", color=colour, alpha=0.35)
        axis.plot(episodes, smooth, color=colour, label=f"minus {name.removeprefix('aulc_minus/')}")
    if not names:
        episodes = [row["episodes"] for row in history]
        axis.plot(episodes, [100 * row["aulc"] for row in history], color=OKABE_ITO[0], label="AULC")
    else:
        axis.axhline(0, color=GREY, linewidth=0.8)
    return _finish(figure, axis, "episodes", "AULC, points", title, played)


def label_curve(labels: Sequence[int], accuracy: Mapping[str, np.ndarray], title: str, played: str) -> Figure:
    """Accuracy of each strategy over the number of labels: every start, and their mean.

    Args:
        labels: T + 1 numbers of labels.
        accuracy: strategy -> [S, T + 1] fractions.
        played: what was measured on what, for the small print.
    """
    figure, axis = _figure()
    for number, (name, values) in enumerate(accuracy.items()):
        colour = OKABE_ITO[number % len(OKABE_ITO)]
        axis.plot(labels, 100 * values.T, color=colour, alpha=0.18, linewidth=0.8)
        axis.plot(labels, 100 * values.mean(0), color=colour, label=name, linewidth=2.2 if number == 0 else 1.4)
    return _finish(figure, axis, "labels", "accuracy, %", title, played)


def save_picture(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    with new_file(path, durable=False) as aside:  # it can be drawn again
        figure.savefig(aside, dpi=150)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4.4), layout="constrained")  # not pyplot's: that would be kept
    return figure, figure.subplots()


def _finish(figure: Figure, axis: Axes, x: str, y: str, title: str, played: str) -> Figure:
    axis.set(xlabel=x, ylabel=y, title=title.replace("$", r"\$"))  # a name is no formula
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(played, x=0.99, ha="right", fontsize=8, color=GREY)
    return figure
