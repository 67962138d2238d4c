"""The journal: one JSON line per event, appended and flushed to the disk before the event counts as done.

    {"n":7,"event":"told","time":...,"files":[...],"labels":[...],"crc32":"9ab03f1e"}

A line ends with a checksum of all that stands before it in the file, earlier lines included, so a change anywhere is
noticed, lines of another journal too. The first releases wrote none; such lines are read, and the first line with a
checksum covers them.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from envs.errors import DataError
from labelling.events import Event, UnreadableEvent, read_event

LENGTH = ".journal_length"  # file beside the journal: how many events it has held
_CHECKSUM = re.compile(rb',"crc32":"([0-9a-f]{8})"\}')
_WIDTH = len(b',"crc32":"01234567"}')


class Journal:
    """Events of a project, in the order in which they happened.

    Nothing is ever rewritten: an undo is an event too. A process that is killed while it appends leaves a part of a
    line at the end. That event never counted; readers leave it out and the next writer cuts it off. A last line that
    lacks nothing but its newline, as some editors leave it, counts. Any other damage is refused, and so is a journal
    that has become shorter than it was.

    Args:
        path: of the file; missing means empty.
    """

    def __init__(self, path: Path):
        self.path = path
        self._length = path.with_name(LENGTH)

    def read(self) -> list[Event]:
        """All events.

        Raises:
            DataError: where a whole line is no event of this place, was written by a newer release, or is missing.
        """
        recorded = self._recorded()  # before the events, of which more may come meanwhile
        events: list[Event] = []
        checksum, checked = 0, 0
        for number, line in enumerate(_whole(self._content()).split(b"\n")[:-1], start=1):
            found = _CHECKSUM.fullmatch(line[-_WIDTH:])
            body = line if found is None else line[:-_WIDTH]
            checksum = zlib.crc32(body, checksum)
            if found is not None and found[1] != b"%08x" % checksum:
                raise self._changed(checked + 1, number)
            if found is None and checked:
                raise self.damaged(number, f"it has no checksum, and line {checked} has one ({_shown(line)})")
            events.append(self._event(number, line, whole=found is not None))
            if found is not None:
                checksum, checked = zlib.crc32(line[-_WIDTH:], checksum), number
            checksum = zlib.crc32(b"\n", checksum)
        if len(events) < recorded:
            raise DataError(
                f"{self.path} ends after event {len(events)}, and {recorded} had been recorded. Restore the file from "
                f"a copy; to go on with what is there, delete {self._length}."
            )
        return events

    def append(self, kind: str, **content: Any) -> Event:
        """Append one event and return it once it is on the disk. The caller holds the project's lock.

        Raises:
            DataError: where it cannot be written, or is none; the journal is then as before.
        """
        held = self._content()
        whole = _whole(held)
        end = min(len(held), len(whole))
        number = whole.count(b"\n") + 1
        values = {"n": number, "event": kind, "time": datetime.now(UTC).isoformat(timespec="seconds")} | content
        try:
            text = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
            event = read_event(text)
        except (UnreadableEvent, UnicodeEncodeError) as error:
            raise DataError(f"{self.path} cannot hold this: {error}. Nothing was recorded.") from None
        checksum = zlib.crc32(text[:-1], zlib.crc32(whole))
        self._write(end, len(held), whole[end:] + text[:-1] + b',"crc32":"%08x"}\n' % checksum)
        with suppress(OSError):  # without it, a loss at the journal's end is not noticed
            self._length.write_text(f"{number}\n")
        return event

    def damaged(self, number: int, problem: str) -> DataError:
        """What to raise where a line cannot be what was written: says what to do."""
        marked = f" and {self._length.name}" if self._length.exists() else ""
        return DataError(
            f"{self.path}, line {number}: {problem}; it was changed by hand or damaged. Restore the file from a copy. "
            f"Without one, delete line {number} and all that follow it{marked}: what was recorded before is sound."
        )

    def _changed(self, first: int, last: int) -> DataError:
        if first == last:
            return self.damaged(last, "its checksum is another")
        return self.damaged(first, f"the checksum of lines {first} to {last} is another")

    def _event(self, number: int, line: bytes, whole: bool) -> Event:
        """The event of a line.

        Args:
            whole: its checksum is right, so whatever is unknown in it was written.
        """
        try:
            event = read_event(line[:-_WIDTH] + b"}" if whole else line)
        except UnreadableEvent as error:
            if error.newer and whole:
                raise DataError(
                    f"{self.path}, line {number}: {error}; a newer release wrote it. Use that one, or a later one."
                ) from None
            newer = " (or a newer release wrote it)" if error.newer else ""
            raise self.damaged(number, f"not event {number} of this journal: {error}{newer} ({_shown(line)})") from None
        if event.n != number:
            raise self.damaged(number, f"not event {number} of this journal ({_shown(line)})")
        return event

    def _write(self, end: int, length: int, line: bytes) -> None:
        """Put a line at `end` of a file of this length, on the disk when this returns."""
        try:
            with open(self.path, "ab", buffering=0) as file:
                if end < length:
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

    def _recorded(self) -> int:
        """How many events there have been; 0 where that is not known."""
        try:
            return int(self._length.read_bytes())
        except (OSError, ValueError):
            return 0

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
    return content + b"\n" if _is_complete(content[end:]) else content[:end]


def _is_complete(line: bytes) -> bool:
    """Whether a line without its newline holds all of an event, maybe followed by what a damaged newline became."""
    try:
        return isinstance(json.JSONDecoder().raw_decode(line.decode(errors="replace"))[0], dict)
    except (ValueError, RecursionError):
        return False


def _shown(line: bytes) -> str:
    text = line[:80].decode(errors="replace")
    return repr(text if len(line) <= 60 else text[:57] + "...")
