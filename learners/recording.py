"""What a training run keeps and shows as it goes: policy, history, checkpoints; TensorBoard, a picture, the copy."""

from __future__ import annotations

import time

from learners.algorithms.base import Trainer
from learners.run_folder import RunFolder
from learners.storage import RunCopy
from learners.telemetry.board import Board
from learners.telemetry.curves import save_picture, training_curve
from learners.telemetry.exported import write_exported
from policies.policy_file import save_policy
from runtime.progress import Progress


class RunRecorder:
    """The record of one run.

    The order of its methods in an iteration, and of the writes in `keep`, is what a kill at any moment relies on: a
    checkpoint appears after the policy and the history row that belong to it.

    Args:
        trainer: what is recorded; its card receives episodes and seconds.
        run: where.
        copy: of that folder, if there is one.
    """

    def __init__(self, trainer: Trainer, run: RunFolder, progress: Progress, copy: RunCopy | None):
        self._trainer, self._run, self._progress, self._copy = trainer, run, progress, copy
        self._board: Board | None = None

    def begin(self, done: int) -> None:
        """Take up the record after so many iterations; of a new run say what it is, and write its initial policy."""
        card = self._trainer.card
        history = self._run.truncate_history(done)
        card.episodes = history[-1]["episodes"] if history else 0
        card.training_seconds = sum(row["seconds"] for row in history)
        self._board = Board(self._run.tensorboard, done + 1)
        if not done:
            self._board.card(self._run.config.read_text(encoding="utf-8"), card)
            save_policy(self._trainer.selector(), card, self._run.policy)

    def keep(
        self, iteration: int, figures: dict[str, float], parts: dict[str, float], seconds: float
    ) -> dict[str, float]:
        """Write what one iteration has come to.

        Args:
            figures, parts: as from `Trainer.step`.
            seconds: of the iteration.

        Returns:
            the figures, and with them the policy's weights, times, and episodes so far.
        """
        trained = time.monotonic()
        trainer, card, run = self._trainer, self._trainer.card, self._run
        figures = dict(figures)
        card.episodes += int(figures.pop("episodes"))
        card.training_seconds += seconds
        selector = trainer.selector()
        save_policy(selector, card, run.policy)
        run.append_history({"iteration": iteration, "episodes": card.episodes, "seconds": seconds} | figures)
        run.save_checkpoint(iteration, trainer.save)
        figures |= {f"policy_weight/{k}": v for k, v in selector.named_weights().items()}
        return figures | {f"time/{k}_s": v for k, v in parts.items()} | {
            "time/iteration_s": seconds,
            "time/save_s": time.monotonic() - trained,
            "training/episodes": card.episodes,
        }  # fmt: skip

    def show(self, iteration: int, figures: dict[str, float]) -> None:
        """Write an iteration's TensorBoard events."""
        self._board.iteration(iteration, figures)
        self._board.histograms(iteration, self._trainer.histograms)

    def say(self, iteration: int, figures: dict[str, float], minutes: float, last: bool) -> None:
        """Show an iteration's line."""
        gains = "  ".join(
            f"{100 * value:+.2f} vs {name.removeprefix('aulc_minus/')}"
            for name, value in figures.items()
            if name.startswith("aulc_minus/")
        )
        trainer = self._trainer
        self._progress.say(
            f"iteration {iteration}/{trainer.config.iterations}  {trainer.card.episodes} episodes  {minutes:.1f} min  "
            f"AULC {100 * figures['aulc']:.2f}  {gains}",
            last=last,
        )

    def send(self) -> None:
        """Copy what is new to the storage."""
        if self._copy is not None:
            self._copy.send()

    def conclude(self, iteration: int, done: int) -> None:
        """Draw the run's learning curve, and let the exported policy play where it has changed.

        Args:
            iteration: the last one.
            done: how many were done before this process went on with the run.
        """
        rows = self._run.read_history()
        if not rows:
            return
        trainer = self._trainer
        title = f"Training on {', '.join(source['name'] for source in trainer.card.trained_on)}"
        curve = training_curve(rows, title, trainer.played)
        save_picture(curve, self._run.picture)
        self._board.picture("training/learning_curve", curve, iteration)
        if iteration > done or not self._run.exported.is_dir():
            self._progress.say("the exported policy plays a few episodes for TensorBoard", last=True)
            write_exported(trainer.config, trainer.selector(), self._run.exported)

    def close(self) -> None:
        """Close the event files."""
        if self._board is not None:
            self._board.close()
