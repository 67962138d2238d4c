"""What a project knows: its journal, replayed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from envs.errors import ConfigError
from labelling.journal import Event

SKIP = "skip"  # what an annotator writes for "cannot tell"; in the journal the label is null
ANNOTATOR = "annotator"  # who answers where nobody is named, at `init` too, so that corrections replace labels
UNDOABLE = ("asked", "told")  # unless `init` told it: those labels come from the samples table


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
    batches: list[Event] = field(default_factory=list)  # events "asked" that were not undone
    trainings: list[Event] = field(default_factory=list)  # events "trained", one per tell that was not undone
    batches_ever: int = 0
    undoable: Event | None = None

    def verdicts(self) -> dict[str, Verdict]:
        """The verdict on each sample by id, in the order in which the samples were first answered."""
        return {sample: verdict(votes.values()) for sample, votes in self.votes.items()}

    def asked(self) -> set[str]:
        """Ids of all samples that a batch asked for."""
        return {row["id"] for batch in self.batches for row in batch["rows"]}

    def waiting(self) -> Event | None:
        """The last batch, if none of its samples has an answer."""
        if not self.batches or any(row["id"] in self.votes for row in self.batches[-1]["rows"]):
            return None
        return self.batches[-1]


def verdict(votes: Iterable[str | None]) -> Verdict:
    """The majority of the votes that name a class; a tie has no label."""
    counts = Counter(vote for vote in votes if vote is not None).most_common(2)
    if not counts:
        return Verdict(None, False)
    tied = len(counts) == 2 and counts[0][1] == counts[1][1]
    return Verdict(None if tied else counts[0][0], len(counts) > 1)


def replay(events: Sequence[Event], classes: Sequence[str]) -> State:
    """State after these events.

    Args:
        classes: those that the project began with.
    """
    undone = {event["undoes"] for event in events if event["event"] == "undo"}
    state = State(list(classes))
    for event in events:
        kind = event["event"]
        state.batches_ever += kind == "asked"
        if event["n"] in undone or event.get("after") in undone:
            continue
        if kind in UNDOABLE and not event.get("init"):
            state.undoable = event
        if kind == "asked":
            state.batches.append(event)
        elif kind == "trained":
            state.trainings.append(event)
        elif kind == "told":
            state.classes += [name for name in event["new_classes"] if name not in state.classes]
            for sample, label, annotator, *_ in event["labels"]:
                state.votes.setdefault(sample, {})[annotator] = label
    return state


def summary_of(event: Event) -> str:
    """An undoable event in words."""
    if event["event"] == "asked":
        return f"batch {event['batch']} ({len(event['rows'])} samples)"
    files = ", ".join(event["files"]) or "Python"
    return f"{len(event['labels'])} answers from {files} ({event['time'][:16].replace('T', ' ')})"


def conflicts(state: State) -> list[dict[str, Any]]:
    """Samples on which annotators disagree: id, votes by annotator, and the majority's label ("" where tied)."""
    found = []
    for sample, result in state.verdicts().items():
        if result.disputed:
            votes = {who: SKIP if label is None else label for who, label in state.votes[sample].items()}
            found.append({"id": sample, "votes": votes, "label": result.label or ""})
    return found
