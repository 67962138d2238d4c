"""The progress line, on a terminal and where lines stay."""

from __future__ import annotations

import io
import sys

import pytest

from runtime.progress import Progress

PYTHONS_PRINT = print  # when files are collected, no test has started Ray yet


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 0.0
        monkeypatch.setattr("runtime.progress.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Terminal(io.StringIO):
    """Standard output that is a terminal; replaced in the test itself, since pytest sets its own before each phase."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        super().__init__()
        monkeypatch.setattr(sys, "stdout", self)

    def isatty(self) -> bool:
        return True

    def written(self) -> str:
        """What came since the last call."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


def shown(written: str) -> list[str]:
    """The lines that a terminal shows in the end."""
    lines = [""]
    for part in written.replace("\n", "\0\n\0").replace("\r\033[K", "\0\r\0").split("\0"):
        if part == "\n":
            lines.append("")
        elif part == "\r":
            lines[-1] = ""
        else:
            lines[-1] += part
    return lines


def test_counting_says_what_was_there_and_estimates_the_rest(clock: Clock) -> None:
    lines: list[str] = []
    line = Progress(lines.append, every=0)
    line.say("compare: starting 2 workers")
    line.count("compare", "chunks", total=8, ready=5)
    line.tick()  # nothing new to say where lines stay
    for clock.now in (20.0, 30.0, 40.0):
        line.advance()
    line.end()
    assert lines == [
        "compare: starting 2 workers",
        "compare: 6/8 chunks (5 already there), 20 s",
        "compare: 7/8 chunks (5 already there), 30 s, about 10 s to go",
        "compare: 8/8 chunks (5 already there), 40 s",
    ]


@pytest.mark.parametrize(("seconds", "says"), [(99.0, "99 s"), (600.0, "10 min"), (9000.0, "2.5 h")])
def test_long_times_are_said_shortly(clock: Clock, seconds: float, says: str) -> None:
    lines: list[str] = []
    line = Progress(lines.append, every=0)
    line.count("compare", "chunks", total=3)
    for clock.now in (seconds, 2 * seconds):
        line.advance()
    assert lines[0] == f"compare: 1/3 chunks, {says}"
    assert lines[1].endswith(f"about {says} to go")


def test_where_lines_stay_most_are_left_out_but_never_the_last(clock: Clock, capsys) -> None:
    line = Progress(every=10)
    for clock.now in (0.0, 4.0, 9.9, 10.0, 15.0):
        line.say(f"at {clock.now:g}")
    line.say("end", last=True)
    line.say("after it")
    line.end()
    assert capsys.readouterr().out.splitlines() == ["at 0", "at 10", "end"]


def test_a_terminal_shows_one_line(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    line = Progress(every=10)
    line.say("a text that is longer than the next one")
    assert shown(terminal.written()) == ["a text that is longer than the next one"]
    line.say("short")
    line.say("the last", last=True)
    line.say("another")
    written = terminal.written()
    assert shown(written) == ["the last", "another"]
    assert "short" in written
    line.end()
    line.end()
    assert terminal.written() == "\n"


def test_ticks_keep_a_terminal_up_to_date(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    line = Progress()
    line.tick()
    assert terminal.written() == ""
    line.count("compare", "chunks", total=3)
    for clock.now in (1.0, 2.0):
        line.tick()
    assert shown(terminal.written()) == ["compare: 0/3 chunks, 2 s"]
    clock.now = 10.0
    line.advance()
    line.advance()
    clock.now = 16.0
    line.tick()
    assert shown(terminal.written()) == ["compare: 2/3 chunks, 16 s, about 6 s to go"]


def test_print_stays_print_where_another_one_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray's does, after functions were defined with Python's as their default."""
    monkeypatch.setattr("builtins.print", lambda *args, **kwargs: PYTHONS_PRINT(*args, **kwargs))
    for write in (PYTHONS_PRINT, print):
        terminal = Terminal(monkeypatch)
        Progress(write).say("a text")
        assert terminal.written() == "\r\033[Ka text"


def test_only_print_rewrites(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch)
    lines: list[str] = []
    line = Progress(lines.append, every=0)
    line.say("first")
    line.say("second", last=True)
    line.end()
    assert lines == ["first", "second"]
    assert terminal.written() == ""
