"""The line that says how far something is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from types import BuiltinFunctionType
from typing import Any


class Progress:
    """One line: rewritten on a terminal; elsewhere a line now and then, each below the one before.

    Args:
        write: called with a line of text; `print` on a terminal gets the one that is rewritten.
        every: seconds that elsewhere pass between two lines, 0 to leave none out.
    """

    def __init__(self, write: Callable[..., Any] = print, every: float = 10.0):
        prints = _is_print(write)
        self._rewrites = prints and sys.stdout.isatty()
        self._write = partial(write, flush=True) if prints else write
        self._every = every
        self._written = -float("inf")  # when
        self._open = False
        self._count: _Count | None = None

    def say(self, text: str, last: bool = False) -> None:
        """Show a text in place of the one before.

        Args:
            last: it stays, and is not left out.
        """
        now = time.monotonic()
        if self._rewrites:
            self._write(f"\r\033[K{text}", end="\n" if last else "")
            self._open = not last
        elif last or now - self._written >= self._every:
            self._write(text)
            self._written = now

    def count(self, name: str, unit: str, total: int, ready: int = 0) -> None:
        """Count from here on; time runs from here on, too.

        Args:
            name: what is under way, in front of the line.
            unit: what is counted.
            total: how many there will be.
            ready: how many of them were there before.
        """
        self._count = _Count(name, unit, total, ready)

    def advance(self) -> None:
        """Show that one more is done, and how long the rest may take."""
        if self._count is not None:
            self._count.advance()
            self.say(str(self._count))

    def tick(self) -> None:
        """Redraw the line; call it regularly."""
        if self._count is not None and self._rewrites:
            self.say(str(self._count))

    def end(self) -> None:
        """Leave the line as it stands; what is written next begins a new one."""
        if self._open:
            self._write("")
            self._open = False


class _Count:
    """How many are done, time passed, time to go."""

    def __init__(self, name: str, unit: str, total: int, ready: int):
        self._name, self._unit, self._total, self._ready = name, unit, total, ready
        self._done = ready
        self._began = time.monotonic()
        self._first = ready, self._began  # how many were done first, and when: the workers' start is behind them

    def advance(self) -> None:
        self._done += 1
        if self._first[0] == self._ready:
            self._first = self._done, time.monotonic()

    def __str__(self) -> str:
        now = time.monotonic()
        there = f" ({self._ready} already there)" if self._ready else ""
        text = f"{self._name}: {self._done}/{self._total} {self._unit}{there}, {_clock(now - self._began)}"
        if self._ready < self._first[0] < self._done < self._total:
            pace = (now - self._first[1]) / (self._done - self._first[0])
            text += f", about {_clock(pace * (self._total - self._done))} to go"
        return text


def _is_print(write: Callable[..., Any]) -> bool:
    """Whether this is `print`: the one of now, which Ray replaces once it shows lines of its own, or Python's."""
    return write is print or (isinstance(write, BuiltinFunctionType) and write.__name__ == "print")


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
