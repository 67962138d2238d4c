"""The journal: one JSON line per event, appended and flushed to the disk before the event counts as done."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from envs.errors import DataError

Event = dict[str, Any]


class Journal:
    """Events of a project, in the order in which they happened.

    Nothing is ever rewritten: an undo is an event too. A process that is killed while it appends leaves a part of a
    line at the end. That event never counted; readers leave it out and the next writer cuts it off. A last line that
    lacks nothing but its newline, as some editors leave it, counts.

    Args:
        path: of the file; missing means empty.
    """

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> list[Event]:
        """All events.

        Raises:
            DataError: where a whole line is no event of this place, as after an edit by hand.
        """
        events = []
        for number, line in enumerate(_whole(self._content()).split(b"\n")[:-1], start=1):
            event = _event(line)
            if event is None or event["n"] != number:
                raise DataError(
                    f"{self.path}, line {number}: not event {number} of this journal ({_shown(line)}); it was changed "
                    "by hand or damaged. Restore the file from a copy."
                )
            events.append(event)
        return events

    def append(self, kind: str, **content: Any) -> Event:
        """Append one event and return it once it is on the disk. The caller holds the project's lock.

        Raises:
            DataError: where it cannot be written; the journal is then as before.
        """
        held = self._content()
        whole = _whole(held)
        end = min(len(held), len(whole))
        event = {"n": whole.count(b"\n") + 1, "event": kind, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        event |= content
        line = whole[end:] + json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        try:
            with open(self.path, "ab", buffering=0) as file:
                if end < len(held):
                    file.truncate(end)
                try:
                    written = 0
                    while written < len(line):
                        written += file.write(line[written:])
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise DataError(f"Cannot write {self.path}: {error.strerror}; it is as it was.") from None
        return event

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise DataError(f"Cannot read {self.path}: {error.strerror}.") from None


def _whole(content: bytes) -> bytes:
    """The complete lines, each with its newline; a last one that was cut off is left out."""
    end = content.rfind(b"\n") + 1
    return content + b"\n" if _event(content[end:]) else content[:end]


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
        return event if isinstance(event["n"], int) and isinstance(event["event"], str) else None
    except (ValueError, KeyError, TypeError):
        return None


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) <= 60 else text[:57] + "...")
