"""Ctrl-C and SIGTERM: a request to stop where that is convenient, and whether one came.

Signals go to the main thread; in any other one nothing is ever requested.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets; the second one interrupts at once."""
    event = threading.Event()

    def ask(signum: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        print("\nStopping after this iteration; once more to stop at once.", flush=True)

    if not _in_main_thread():
        yield event
        return
    before = {number: signal.signal(number, ask) for number in _STOPS}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came in the block, even where it was handled: training ends as usual then."""
    if not _in_main_thread():
        yield lambda: False
        return
    ours, pythons = socket.socketpair()
    with ours, pythons:
        ours.setblocking(False)
        pythons.setblocking(False)
        before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)

        def came() -> bool:
            try:
                return bool(set(_STOPS) & set(ours.recv(4096)))
            except BlockingIOError:
                return False

        try:
            yield came
        finally:
            signal.set_wakeup_fd(before)


@contextmanager
def ends_at_interrupt(patience: float = 10.0) -> Iterator[None]:
    """Let Ctrl-C end the process where it does not end the block within `patience` seconds.

    For foreign code that waits outside of Python, which acts on a signal only when it is back.
    """
    if not _in_main_thread():
        yield
        return
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    over = threading.Event()
    before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)

    def watch() -> None:
        while came := ours.recv(4096):
            if before != -1:
                os.write(before, came)  # somebody outside of the block waits for signals, too
            if signal.SIGINT in came and not over.wait(patience):
                print("\ninterrupted", file=sys.stderr, flush=True)
                os._exit(130)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        pythons.close()
        watcher.join()
        ours.close()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
