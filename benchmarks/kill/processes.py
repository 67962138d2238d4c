"""The processes that a command starts, known by a variable in their environment."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_VARIABLE = "RL_MBA_KILLED"
_SECONDS = 150.0  # that Ray's processes have to notice a death; its agents take a minute


def mark() -> str:
    """A value that no other command has."""
    return secrets.token_hex(8)


def be(mark: str, fault: Callable[[], None] | None) -> None:
    """What a child does to itself: what it starts bears the mark, and it has its fault."""
    os.environ[_VARIABLE] = mark
    if fault is not None:
        fault()


def left(mark: str) -> list[str]:
    """Command lines of the marked processes that do not end in time."""
    end = time.monotonic() + _SECONDS
    while (found := _marked(f"{_VARIABLE}={mark}".encode())) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _marked(wanted: bytes) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:80])
    return found
