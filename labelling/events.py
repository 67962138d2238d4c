"""What a journal holds: one class for each kind of event, whose fields are checked when a line is read or written.

Whatever a release wrote is read for good, so fields are added with a default, and none is renamed. An event or a field
that is not here is refused: a newer release wrote it, and leaving it out would be another history.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

_STRICT = ConfigDict(strict=True, extra="forbid", frozen=True)
_OF_NEWER_RELEASES = ("union_tag_invalid", "extra_forbidden")  # what pydantic calls an unknown event, and field


@with_config(_STRICT)
class Row(TypedDict):
    """A sample of a batch; predicted and confidence are empty before there is a model."""

    id: str
    predicted: str
    confidence: float | Literal[""]
    why: str


class _Event(BaseModel):
    model_config = _STRICT

    n: Annotated[int, Ge(1)]  # number of the line
    time: str  # UTC, ISO 8601


class Asked(_Event):
    """A batch was chosen."""

    event: Literal["asked"] = "asked"
    batch: Annotated[int, Ge(1)]
    rows: list[Row]


class Told(_Event):
    """Answers were given."""

    event: Literal["told"] = "told"
    files: list[str]
    new_classes: list[str]
    labels: list[tuple[str, str | None, str, int, int]]  # id, label (None: skip), annotator, index of the file, its row
    init: bool = False  # labels that the samples had before


class Trained(_Event):
    """A model was trained on what was told."""

    event: Literal["trained"] = "trained"
    after: int  # number of the event "told"
    progress: dict[str, Any]  # see `labelling.progress.Progress`


class Undo(_Event):
    """An earlier event was taken back."""

    event: Literal["undo"] = "undo"
    undoes: int  # its number


Event = Annotated[Asked | Told | Trained | Undo, Field(discriminator="event")]
_READER: TypeAdapter[Asked | Told | Trained | Undo] = TypeAdapter(Event)


class UnreadableEvent(ValueError):
    """A text that is no event, in words; `newer` where a newer release may have written it."""

    def __init__(self, problem: str, newer: bool):
        super().__init__(problem)
        self.newer = newer


def read_event(text: bytes) -> Asked | Told | Trained | Undo:
    """The event that a JSON text describes.

    Raises:
        UnreadableEvent: where it describes none.
    """
    try:
        return _READER.validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True, include_input=False)
    first = next((problem for problem in found if problem["type"] in _OF_NEWER_RELEASES), found[0])
    if first["type"] == "union_tag_invalid":
        raise UnreadableEvent(f"the event {first['ctx']['tag'][:40]!r} is unknown to this release", newer=True)
    *_, place = ("", *first["loc"])
    if first["type"] == "extra_forbidden":
        raise UnreadableEvent(f"the field {str(place)[:40]!r} is unknown to this release", newer=True)
    where = ".".join(str(part) for part in first["loc"][1:5])
    raise UnreadableEvent(f"no event ({where + ': ' if where else ''}{first['msg'][:100]})", newer=False)
