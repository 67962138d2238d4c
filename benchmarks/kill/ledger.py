"""What people were told that their answers are: a list of its own, and what exports and status say against it."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

Votes = dict[tuple[str, str], str]  # sample, annotator -> label, or "skip"


@dataclass(frozen=True)
class Ledger:
    """Answers and batches as they stand; `before` is what an undo gives back."""

    votes: Votes = field(default_factory=dict)
    batches: int = 0
    batch: tuple[str, ...] = ()  # samples of the last one
    before: Ledger | None = None

    @property
    def waits(self) -> bool:
        """Whether the last batch has no answer, so that the next ask gives it again."""
        answered = {sample for sample, _ in self.votes}
        return bool(self.batch) and not answered & set(self.batch)

    def asked(self, batch: tuple[str, ...] = ()) -> Ledger:
        return self if self.waits else Ledger(self.votes, self.batches + 1, batch, self)

    def told(self, answers: Votes) -> Ledger:
        votes = self.votes | answers
        return self if votes == self.votes else replace(self, votes=votes, before=self)

    def undone(self) -> Ledger:
        return self.before or self

    def same(self, seen: Ledger) -> bool:
        return (self.votes, self.batches) == (seen.votes, seen.batches)


def seen_in(labels: Path, status: str) -> Ledger:
    """What an export and `status` say.

    Raises:
        ValueError: where they say nothing that could be understood, or the majority is not that of the votes.
    """
    votes: Votes = {}
    with open(labels, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            named = json.loads(row["votes"])
            votes |= {(row["id"], who): label for who, label in named.items()}
            if row["label"] != majority(list(named.values())):
                raise ValueError(f"{row['id']}: {row['label']!r} is not the majority of {named}")
    found = re.search(r"^batches +(\d+), conflicts", status, re.MULTILINE)
    if found is None:
        raise ValueError(f"status names no batches: {status!r}")
    return Ledger(votes, int(found[1]))


def majority(labels: list[str]) -> str:
    """The label of most who name a class; empty where nobody does, and where two are level."""
    counts = Counter(label for label in labels if label != "skip").most_common(2)
    tied = len(counts) == 2 and counts[0][1] == counts[1][1]
    return counts[0][0] if counts and not tied else ""


def samples_of(batch: Path) -> tuple[str, ...]:
    """Ids in a batch's file."""
    with open(batch, newline="", encoding="utf-8") as file:
        return tuple(row["id"] for row in csv.DictReader(file))
