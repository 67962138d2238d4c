"""What a run shows while it learns: TensorBoard scalars in named groups, a progress line, the learning curve."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from torch.utils.tensorboard import SummaryWriter

matplotlib.use("Agg")

# Environment figure -> TensorBoard tag; figures with a group of their own ("reward/...") keep their name.
GROUPS = {
    "accuracy": "accuracy/multimodal",
    "soft_accuracy": "accuracy/soft",
    "hard_accuracy": "accuracy/hard_third",
    "weakest_modality": "accuracy/weakest_modality",
    "return": "reward/return",
    "aulc": "accuracy/aulc",
}
RENAMED = {"accuracy/": "modality_accuracy/", "amcb/": "amcb_weight/"}


def tag_of(name: str) -> str:
    """TensorBoard tag of a figure."""
    if name in GROUPS:
        return GROUPS[name]
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name if "/" in name else f"training/{name}"


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names, numbered where they repeat."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return distinct


class Board:
    """TensorBoard events of a run.

    Args:
        folder: where the event files go.
        next_step: events from this step on, left by an interrupted run, are superseded.
    """

    def __init__(self, folder: Path, next_step: int):
        self._writer = SummaryWriter(str(folder), purge_step=next_step)

    def iteration(self, step: int, figures: dict[str, float]) -> None:
        """Write one iteration's figures."""
        for name, value in figures.items():
            self._writer.add_scalar(tag_of(name), value, step)
        self._writer.flush()

    def text(self, name: str, text: str) -> None:
        """Write a text card."""
        self._writer.add_text(name, text, 0)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class Progress:
    """One line that is rewritten on a terminal, or a line every few seconds elsewhere."""

    def __init__(self, every: float = 10.0):
        self._terminal = sys.stdout.isatty()
        self._every, self._last, self._width = every, -np.inf, 0

    def __call__(self, text: str, last: bool = False) -> None:
        if self._terminal:
            print("\r" + text.ljust(self._width), end="\n" if last else "", flush=True)
            self._width = len(text)
        elif last or time.monotonic() - self._last >= self._every:
            print(text, flush=True)
            self._last = time.monotonic()


def draw_learning_curve(history: list[dict[str, Any]], path: Path, title: str, played: str) -> None:
    """Picture of training: the policy's AULC minus each paired baseline's, over episodes.

    Args:
        history: rows of `RunFolder.read_history`, with `episodes` and `aulc_minus/<strategy>` in fractions.
        played: what was measured on what, for the small print.
    """
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    episodes = [row["episodes"] for row in history]
    names = sorted({k for row in history for k in row if k.startswith("aulc_minus/")})
    for name, colour in zip(names, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=False):
        values = 100 * np.array([row[name] for row in history])
        smooth = [values[max(0, i - 4) : i + 1].mean() for i in range(len(values))]
        axis.plot(episodes, values, ".", color=colour, alpha=0.35)
        axis.plot(episodes, smooth, color=colour, label=f"minus {name.removeprefix('aulc_minus/')}")
    if not names:
        axis.plot(episodes, [100 * row["aulc"] for row in history], color="#0072B2", label="AULC")
    else:
        axis.axhline(0, color="#555555", linewidth=0.8)
    axis.set(xlabel="episodes", ylabel="AULC, points", title=title)
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.text(0.99, 0.01, played, ha="right", fontsize=7, color="#555555")
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=150)
    plt.close(figure)
    temporary.replace(path)
