"""Commands in forked children of a process that has everything loaded, so that a death takes a tenth of a second."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import labelling.model
from envs.models.frozen.trainer import FrozenConfig

SYNTHETIC = "synthetic:samples=120,classes=3,modalities=2,dim=4,seed=4"
_MAXIMUM = 120.0  # seconds after which a command of labelling counts as one that hangs


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit status, or minus the signal that killed it, and all that it had said by then."""

    status: int
    said: str
    seconds: float

    @property
    def died(self) -> bool:
        return self.status < 0

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.said or (not self.died and self.status not in (0, 2))


def preload(folder: Path) -> None:
    """Load what commands load on first use, and let models train for two steps: what is written stays the same."""
    labelling.model.FrozenConfig = functools.partial(FrozenConfig, steps=2)  # type: ignore[misc, assignment]
    labelled, plain = str(folder / "labelled"), str(folder / "plain")
    (folder / "two.csv").write_text("id,label\ns000,class 0\ns001,class 1\n")
    commands = [
        ["init", labelled, "--samples", SYNTHETIC, "--with-labels"],
        ["init", plain, "--samples", SYNTHETIC],
        ["status", labelled],
        ["export", labelled],
        ["tell", plain, str(folder / "two.csv")],
        ["ask", plain],
        ["undo", plain],
    ]
    load(commands)


def load(commands: Sequence[Sequence[str]]) -> None:
    """Run commands here, so that what they load on first use is loaded in all children from now on."""
    for arguments in commands:
        with contextlib.redirect_stdout(io.StringIO()):
            if _main(arguments) != 0:
                raise RuntimeError(f"{arguments[0]} does not work")
    gc.collect()
    gc.freeze()


class Running:
    """Commands in a child, one after the other, until one fails.

    Args:
        commands: arguments of each, as of run.py.
        fault: what the child does to itself before it begins.
    """

    def __init__(self, commands: Sequence[Sequence[str]], fault: Callable[[], None] | None = None):
        self._reader, writer = os.pipe()  # no limit of files applies to it
        self._began = time.perf_counter()
        self.pid = os.fork()
        if self.pid == 0:
            self._be(commands, fault, writer)
        os.close(writer)
        os.set_blocking(self._reader, False)

    def _be(self, commands: Sequence[Sequence[str]], fault: Callable[[], None] | None, writer: int) -> None:
        status = 97
        try:
            os.close(self._reader)
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            sys.stdout = os.fdopen(1, "w", buffering=1)  # a line that was said has left the process
            sys.stderr = os.fdopen(2, "w", buffering=1)
            if fault is not None:
                fault()
            status = next((status for arguments in commands if (status := _main(arguments))), 0)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 96
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 1
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def end(self, maximum: float = _MAXIMUM) -> Outcome:
        """Wait until it has ended; it is killed where it takes more seconds."""
        said = b""
        while True:
            with contextlib.suppress(BlockingIOError):
                said += os.read(self._reader, 1 << 20)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            seconds = time.perf_counter() - self._began
            if pid:
                break
            if seconds > maximum:
                self.kill()
            time.sleep(0.002)
        with open(self._reader, "rb") as rest, contextlib.suppress(BlockingIOError):
            said += rest.read() or b""
        return Outcome(os.waitstatus_to_exitcode(status), said.decode(errors="replace"), seconds)


def run(*commands: Sequence[str]) -> Outcome:
    """Run commands in peace."""
    return Running(commands).end()


def _main(arguments: Sequence[str]) -> int:
    import run as command_line

    return command_line.main(list(arguments))
