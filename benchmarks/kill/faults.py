"""What happens to a process: it is killed at a moment, at a step, within a write; its disk is full, or fails."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_STEPS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.listdir")
_CALLS = ("fsync", "replace", "rename", "open", "mkdir", "chmod", "ftruncate")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(folder: Path, number: int) -> Callable[[], None]:
    """Killed before its n-th step in the file system below a folder."""

    def prepare() -> None:
        left = [number]

        def hook(event: str, given: tuple[Any, ...]) -> None:
            if event in _STEPS and given and str(folder) in str(given[0]):
                left[0] -= 1
                if left[0] == 0:
                    _die()

        sys.addaudithook(hook)

    return prepare


def at_sync(number: int, after: bool) -> Callable[[], None]:
    """Killed before or after its n-th fsync."""

    def prepare() -> None:
        fsync, left = os.fsync, [number]

        def dying(handle: int) -> None:
            left[0] -= 1
            if left[0] == 0 and not after:
                _die()
            fsync(handle)
            if left[0] == 0:
                _die()

        os.fsync = dying  # type: ignore[assignment]

    return prepare


def within_write(limit: int) -> Callable[[], None]:
    """Killed by the system within the write by which a file would outgrow the limit; what fits is written."""

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return prepare


def small_files(limit: int) -> Callable[[], None]:
    """No file may outgrow the limit: the write is cut short, and the next one fails."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def io_error(call: str, number: int) -> Callable[[], None]:
    """The n-th call of a function of `os` fails with EIO."""

    def prepare() -> None:
        real, left = getattr(os, call), [number]

        def failing(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(given[0]))
            return real(*given, **named)

        setattr(os, call, failing)

    return prepare


def some_io_error(rng: random.Random) -> Callable[[], None]:
    return io_error(rng.choice(_CALLS), rng.choice([1, 1, 2, 3, 5]))


class FullDisk:
    """A file that fills the disk of a folder but for some bytes, while the context lasts.

    Args:
        folder: on a small disk of its own.
        left: bytes.
    """

    def __init__(self, folder: Path, left: int):
        self.file, self.left = folder / "filler", left

    def __enter__(self) -> None:
        disk = os.statvfs(self.file.parent)
        with suppress(OSError), open(self.file, "wb", buffering=0) as file:
            size = max(disk.f_bavail * disk.f_bsize - self.left, 0)
            while size > 0:
                size -= file.write(bytes(min(size, 1 << 20)))

    def __exit__(self, *_: object) -> None:
        self.file.unlink()
