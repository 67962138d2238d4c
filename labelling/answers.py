"""One person's answer about one sample, where it was given and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from envs.errors import DataError, shown
from labelling.state import ANNOTATOR, SKIP

_MILLISECONDS = 10**11  # a time since 1970 that is larger counts these


@dataclass(frozen=True, slots=True)
class Answer:
    """One person's answer about a sample, and where it was given."""

    id: str
    label: str | None  # None: skip, "cannot tell"
    annotator: str = ANNOTATOR
    file: str = "Python"
    row: int = 0  # 1 is the header
    unit: str = "row"  # what `row` counts
    key: str = ""  # of the sample, see labelling.identity
    is_cell: bool = False  # whether a spreadsheet may have held it
    when: str = ""  # it was given, where that is known
    also: str = ""  # another name of the annotator, under which earlier answers may be known

    @property
    def place(self) -> str:
        return f"{self.file}, {self.unit} {self.row}" if self.row else self.file


def supersedes(new: Answer, old: Answer) -> bool:
    """Whether `new`, which comes behind `old`, is the later answer of the same person about the same sample.

    Raises:
        DataError: where they differ and a time cannot be read.
    """
    if new.when == old.when or not (new.when and old.when):
        return True
    times = []
    for answer in (new, old):
        time = moment(answer.when)
        if time is None and new.label != old.label:
            raise DataError(
                f"{answer.place}: {shown(answer.when)} is no time like 2026-01-31T09:30:00Z, and {answer.annotator} "
                f"calls {shown(answer.id)} {shown(new.label or SKIP)} and {shown(old.label or SKIP)}. Write the time "
                "like this, or keep one of the answers. Nothing was recorded."
            )
        times.append(time)
    return times[0] is None or times[1] is None or times[0] >= times[1]


def latest(answers: Iterable[Answer]) -> list[Answer]:
    """The last answer of each person about each sample, in the order of the first ones; a table as a whole."""
    found: dict[tuple[str, str, str], Answer] = {}
    for answer in answers:
        of = answer.id, answer.key, answer.annotator
        if of not in found or supersedes(answer, found[of]):
            found[of] = answer
    return list(found.values())


def moment(text: str) -> datetime | None:
    """A time as ISO 8601 writes it, or in seconds or milliseconds since 1970; without an offset it is UTC."""
    try:
        if text.replace(".", "", 1).isdigit():
            number = float(text)
            return datetime.fromtimestamp(number / 1000 if number > _MILLISECONDS else number, UTC)
        time = datetime.fromisoformat(text.strip().replace(" UTC", "+00:00"))
    except (ValueError, OverflowError, OSError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
