"""Ctrl-C and SIGTERM in this process: once asks, twice interrupts, and what was handled is still noticed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from runtime.signals import interruptions, stop_requested


@pytest.fixture
def handler() -> Iterator[list[int]]:
    """Numbers of the signals that reach a handler of the test's own."""
    received: list[int] = []
    before = {s: signal.signal(s, lambda number, _: received.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    yield received
    for s, old in before.items():
        signal.signal(s, old)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_one_asks_and_the_second_one_interrupts(handler: list[int], number: int, capsys) -> None:
    with pytest.raises(KeyboardInterrupt), stop_requested() as stopping:
        assert not stopping.is_set()
        os.kill(os.getpid(), number)
        assert stopping.is_set()
        assert "once more to stop at once" in capsys.readouterr().out
        os.kill(os.getpid(), signal.SIGINT)
    assert handler == []
    os.kill(os.getpid(), number)
    assert handler == [number]  # whoever handled it before does so again


def test_a_handled_interruption_is_noticed(handler: list[int]) -> None:
    with interruptions() as came:
        assert not came()
        os.kill(os.getpid(), signal.SIGINT)
        assert came()
        assert not came()  # since the last question
    with interruptions() as came, stop_requested():
        assert not came()
        os.kill(os.getpid(), signal.SIGTERM)
        assert came()
    assert handler == [signal.SIGINT]


def test_another_signal_is_no_interruption() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with interruptions() as came:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not came()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_other_threads_are_left_alone(handler: list[int]) -> None:
    told: list[bool] = []

    def work() -> None:
        with stop_requested() as stopping, interruptions() as came:
            told.extend([stopping.is_set(), came()])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [False, False]
