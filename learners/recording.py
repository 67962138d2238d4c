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
    """The record of one run, taken up after the iterations that its trainer has done.

    Making it says of a new run what it is, and writes its initial policy. The order of its methods in an iteration, and
    of the writes in `keep`, is what a kill at any moment relies on: a checkpoint appears after the policy and the
    history row that belong to it.

    Args:
        trainer: what is recorded, restored where it goes on; its card receives episodes and seconds.
        run: where.
        copy: of that folder, if there is one.
    """

    def __init__(self, trainer: Trainer, run: RunFolder, progress: Progress, copy: RunCopy | None):
        self._trainer, self._run, self._progress, self._copy = trainer, run, progress, copy
        card, self._done = trainer.card, trainer.done
        history = run.truncate_history(self._done)
        card.episodes = history[-1]["episodes"] if history else 0
        self._seconds: float = sum(row["seconds"] for row in history)
        card.training_seconds = self._seconds
        self._board = Board(run.tensorboard, self._done + 1)
        if not self._done:
            self._board.card(run.config.read_text(encoding="utf-8"), card)
            save_policy(trainer.selector(), card, run.policy)

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
        self._seconds += seconds
        card.training_seconds = self._seconds
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

    def say(self, iteration: int, figures: dict[str, float], minutes: float, last: bool, note: str = "") -> None:
        """Show an iteration's line, with a note at its end."""
        gains = "  ".join(
            f"{100 * value:+.2f} vs {name.removeprefix('aulc_minus/')}"
            for name, value in figures.items()
            if name.startswith("aulc_minus/")
        )
        trainer = self._trainer
        self._progress.say(
            f"iteration {iteration}/{trainer.config.iterations}  {trainer.card.episodes} episodes  {minutes:.1f} min  "
            f"AULC {100 * figures['aulc']:.2f}  {gains}{note}",
            last=last,
        )

    def send(self) -> None:
        """Copy what is new to the storage."""
        if self._copy is not None:
            self._copy.send()

    def conclude(self, iteration: int) -> None:
        """Draw the run's learning curve after its last iteration, and let the policy play where it has changed."""
        rows = self._run.read_history()
        if not rows:
            return
        trainer = self._trainer
        title = f"Training on {', '.join(source['name'] for source in trainer.card.trained_on)}"
        curve = training_curve(rows, title, trainer.played)
        save_picture(curve, self._run.picture)
        self._board.picture("training/learning_curve", curve, iteration)
        if iteration > self._done or not self._run.exported.is_dir():
            self._progress.say("the exported policy plays a few episodes for TensorBoard", last=True)
            write_exported(trainer.config, trainer.selector(), self._run.exported)

    def close(self) -> None:
        """Close the event files."""
        self._board.close()
