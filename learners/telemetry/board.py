"""What a run shows while it learns: TensorBoard events in named groups.

docs/metrics.md explains every tag.
"""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from envs.fields import flat
from policies.policy_file import PolicyCard
from runtime import markdown

# Environment figure -> TensorBoard tag; figures with a group of their own ("reward/...") keep their name.
GROUPS = {
    "accuracy": "accuracy/multimodal",
    "soft_accuracy": "accuracy/soft",
    "hard_accuracy": "accuracy/hard_third",
    "weakest_modality": "accuracy/weakest_modality",
    "return": "reward/return",
    "aulc": "accuracy/aulc",
}
BINS = 50  # of a histogram
RENAMED = {"accuracy/": "modality_accuracy/", "amcb/": "amcb_weight/"}


def tag_of(name: str) -> str:
    """TensorBoard tag of a figure."""
    if name in GROUPS:
        return GROUPS[name]
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name if "/" in name else f"training/{name}"


class Board:
    """TensorBoard events of a run.

    Args:
        folder: where the event files go.
        next_step: events from this step on, left by an interrupted run, are superseded; None: whatever is there stays.
    """

    def __init__(self, folder: Path, next_step: int | None = None):
        self._writer = SummaryWriter(str(folder), purge_step=next_step)

    def iteration(self, step: int, figures: Mapping[str, float]) -> None:
        """Write one iteration's figures."""
        for name, value in figures.items():
            self._writer.add_scalar(tag_of(name), value, step)
        self._writer.flush()

    def histograms(self, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Write distributions by tag, any shape; what is not finite is left out."""
        for tag, given in values.items():
            finite = given[np.isfinite(given)]
            if finite.size:
                self._writer.add_histogram(tag, finite, step, bins=BINS)

    def picture(self, tag: str, figure: Figure, step: int) -> None:
        """Write a picture."""
        self._writer.add_figure(tag, figure, step, close=False)

    def card(self, settings: str, card: PolicyCard) -> None:
        """Write the text card of a run: command, sources, versions, and its settings (YAML)."""
        sources = [
            (s["name"], s["fingerprint"] or "drawn anew", s["labels"] or "counted as it goes") for s in card.trained_on
        ]
        versions = {"python": platform.python_version(), **card.versions}
        parts = (
            f"**{card.algorithm}**, preset `{card.preset}`, seed {card.seed}",
            f"    {shlex.join(sys.argv)}",
            _markdown_table(("source", "fingerprint", "labels of its policy half"), sources),
            _markdown_table(("package", "version"), versions.items()),
            "```yaml\n" + settings + "```",
        )
        self._writer.add_text("run/card", "\n\n".join(parts), 0)

    def hparams(self, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write one row of the HParams tab: what a trial of a sweep was given, and what came of it.

        Call it once, at the end of a trial, on a `Board(trial's TensorBoard folder)`: the row is named after that
        folder, and the tab lines up all rows below `tensorboard --logdir`.

        Args:
            settings: what the sweep varies, nested or with dotted names; all but numbers are shown as text.
            metrics: results; shown as result/<name>.
        """
        results = {f"result/{name}": float(value) for name, value in metrics.items()}
        shown = {name: _shown(value) for name, value in flat(settings).items()}
        for summary in hparams_summaries(shown, results):
            self._writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]  # torch leaves it None at first
        for tag, value in results.items():
            self._writer.add_scalar(tag, value, 0)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def _shown(value: Any) -> float | str:
    """A setting as the HParams tab takes it."""
    if isinstance(value, int | float):
        return value
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _markdown_table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    cells = [[markdown.escape(str(cell)) for cell in row] for row in rows]
    return markdown.table(titles, cells, left=range(len(titles)))
