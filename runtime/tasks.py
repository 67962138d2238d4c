"""Work for several processes at a time, and the line that says how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from envs.errors import RLMBAError

RETRIES = 3  # times that a task is started again after its process died

_TICK = 0.5  # seconds between updates of the progress line
T = TypeVar("T")


def remote_task(function: Callable[..., Any]) -> Any:
    """A function as a Ray task on one core."""
    return ray.remote(num_cpus=1, max_retries=RETRIES)(function)


def in_parallel(
    jobs: Iterable[T], submit: Callable[[T], ray.ObjectRef], at_once: int, tick: Callable[[], None]
) -> Iterator[tuple[T, ray.ObjectRef]]:
    """Run jobs as Ray tasks, `at_once` at a time, and yield each as it ends, for `fetch` to get its result.

    Tasks that still run when the caller stops, for whatever reason, are cancelled.

    Args:
        submit: starts the task of a job.
        tick: called at least twice a second.
    """
    waiting, running = iter(jobs), {}
    try:
        while True:
            while len(running) < at_once and (job := next(waiting, None)) is not None:
                running[submit(job)] = job
            if not running:
                return
            finished, _ = ray.wait(list(running), timeout=_TICK)
            for ref in finished:
                yield running.pop(ref), ref
            tick()
    finally:
        for ref in running:
            ray.cancel(ref, force=True)


def fetch(ref: ray.ObjectRef) -> Any:
    """The result of a task.

    Raises:
        RLMBAError: that of the task, or where its process died again and again.
    """
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, RLMBAError):
            raise error.cause from None
        raise
    except RayError as error:
        first = str(error).strip().splitlines()[0]
        raise RLMBAError(f"A worker process ended early ({first}); try fewer workers.") from error


class Progress:
    """Chunks done, time passed, time to go: one line on a terminal, else a line per finished chunk.

    Args:
        progress: called with a line of text; `print` on a terminal gets one line that is updated.
        total: chunks.
        ready: how many of them were there before.
    """

    def __init__(self, progress: Callable[..., None], total: int, ready: int):
        self.progress, self.total, self.ready = progress, total, ready
        self.done = ready
        self.began = time.perf_counter()
        self.first = ready, self.began  # chunks finished first, and when: the workers' start is behind them
        self.updates = progress is print and sys.stdout.isatty()
        self.open = False

    def advance(self) -> None:
        """One more chunk."""
        self.done += 1
        self._show()

    def tick(self) -> None:
        """Time has passed."""
        if self.updates:
            self._show()

    def say(self, text: str) -> None:
        """Show a text on the line."""
        if self.updates:
            self.progress(f"\r\033[K{text}", end="", flush=True)
            self.open = True
        else:
            self.progress(text)

    def end(self) -> None:
        """Leave the line."""
        if self.open:
            self.progress()
            self.open = False

    def _show(self) -> None:
        now = time.perf_counter()
        there = f" ({self.ready} already there)" if self.ready else ""
        text = f"compare: {self.done}/{self.total} chunks{there}, {_clock(now - self.began)}"
        if self.first[0] == self.ready:
            self.first = self.done, now
        elif self.first[0] < self.done < self.total:
            pace = (now - self.first[1]) / (self.done - self.first[0])
            text += f", about {_clock(pace * (self.total - self.done))} to go"
        self.say(text)


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
