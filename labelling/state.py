"""What a project knows: its journal, replayed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from envs.errors import ConfigError
from labelling.events import Asked, Event, Told, Trained, Undo

SKIP = "skip"  # what an annotator writes for "cannot tell"; in the journal the label is null
ANNOTATOR = "annotator"  # who answers where nobody is named, at `init` too, so that corrections replace labels
_FILES = 3  # of an event that its summary names


def check_class(name: object) -> None:
    """Refuse what cannot be the name of a class.

    Raises:
        ConfigError: saying why.
    """
    if not isinstance(name, str):
        raise ConfigError(f"class {name!r} is of type {type(name).__name__}; a class is a text, as in {str(name)!r}.")
    if name != name.strip() or not name or min(name) < " " or name.lower() == SKIP:
        raise ConfigError(
            f"class {name!r}: a class needs a name in one line, without blanks around it, other than '{SKIP}', which "
            "means 'cannot tell'."
        )


@dataclass(frozen=True)
class Verdict:
    """The outcome of the votes on one sample."""

    label: str | None  # of the majority; None where everybody skips or the votes tie
    disputed: bool  # two annotators named different classes

    @property
    def tied(self) -> bool:
        return self.disputed and self.label is None

    @property
    def skipped(self) -> bool:
        return not self.disputed and self.label is None


@dataclass
class State:
    """Votes, classes and batches as they stand after the last event."""

    classes: list[str]
    votes: dict[str, dict[str, str | None]] = field(default_factory=dict)  # id -> annotator -> label, None: skip
    batches: list[Asked] = field(default_factory=list)  # those that were not undone
    trainings: list[Trained] = field(default_factory=list)  # one per tell that was not undone
    batches_ever: int = 0
    undoable: Asked | Told | None = None  # what `init` told is not: those labels come from the samples table

    def verdicts(self) -> dict[str, Verdict]:
        """The verdict on each sample by id, in the order in which the samples were first answered."""
        return {sample: verdict(votes.values()) for sample, votes in self.votes.items()}

    def asked(self) -> set[str]:
        """Ids of all samples that a batch asked for."""
        return {row["id"] for batch in self.batches for row in batch.rows}

    def waiting(self) -> Asked | None:
        """The last batch, if none of its samples has an answer."""
        if not self.batches or any(row["id"] in self.votes for row in self.batches[-1].rows):
            return None
        return self.batches[-1]


def verdict(votes: Iterable[str | None]) -> Verdict:
    """The majority of the votes that name a class; a tie has no label."""
    counts = Counter(vote for vote in votes if vote is not None).most_common(2)
    if not counts:
        return Verdict(None, False)
    tied = len(counts) == 2 and counts[0][1] == counts[1][1]
    return Verdict(None if tied else counts[0][0], len(counts) > 1)


class Contradiction(ValueError):
    """An event that cannot have followed the others, in words."""

    def __init__(self, event: Event, problem: str):
        super().__init__(problem)
        self.number = event.n


def replay(events: Sequence[Event], classes: Sequence[str]) -> State:
    """State after these events.

    Args:
        classes: those that the project began with.

    Raises:
        Contradiction: where one of them cannot have followed the others.
    """
    undone = {event.undoes for event in events if isinstance(event, Undo)}
    state = State(list(classes))
    standing: dict[int, Asked | Told] = {}  # by number: what an undo may name
    for event in events:
        if isinstance(event, Asked):
            state.batches_ever += 1
            if event.batch != state.batches_ever:
                raise Contradiction(event, f"batch {event.batch} where batch {state.batches_ever} comes next")
        if isinstance(event, Undo):
            if standing.pop(event.undoes, None) is None:
                raise Contradiction(event, f"it takes event {event.undoes} back, which is no batch or answers")
        elif isinstance(event, Trained):
            if not isinstance(standing.get(event.after), Told):
                raise Contradiction(event, f"it names event {event.after}, which told nothing")
            if event.after not in undone:
                state.trainings.append(event)
        else:
            standing[event.n] = event
            if event.n not in undone:
                _apply(event, state)
    return state


def people_of(state: State) -> list[str]:
    """Who has answered so far, in the order of their first answers."""
    return list(dict.fromkeys(who for votes in state.votes.values() for who in votes))


def _apply(event: Asked | Told, state: State) -> None:
    """Add a batch or answers to a state."""
    if isinstance(event, Asked):
        state.batches.append(event)
        state.undoable = event
        return
    state.undoable = state.undoable if event.init else event
    state.classes += [name for name in event.new_classes if name not in state.classes]
    known = {None, *state.classes}
    for sample, label, annotator, *_ in event.labels:
        if label not in known:
            raise Contradiction(event, f"sample {sample!r:.60} has the label {label!r:.60}, which is no class")
        state.votes.setdefault(sample, {})[annotator] = label


def summary_of(event: Asked | Told) -> str:
    """An undoable event in words."""
    if isinstance(event, Asked):
        return f"batch {event.batch} ({len(event.rows)} samples)"
    # Journals of earlier releases name each task of a Label Studio export.
    names = list(dict.fromkeys(_short(file.partition(", task ")[0]) for file in event.files))
    files = ", ".join(names[:_FILES]) or "Python"
    files += f" and {len(names) - _FILES} more" if len(names) > _FILES else ""
    return f"{len(event.labels)} answers from {files} ({event.time[:16].replace('T', ' ')})"


def _short(file: str) -> str:
    return os.path.basename(file) if os.path.isabs(file) else file


def conflicts(state: State) -> list[dict[str, Any]]:
    """Samples on which annotators disagree: id, votes by annotator, and the majority's label ("" where tied)."""
    found = []
    for sample, result in state.verdicts().items():
        if result.disputed:
            votes = {who: SKIP if label is None else label for who, label in state.votes[sample].items()}
            found.append({"id": sample, "votes": votes, "label": result.label or ""})
    return found
