"""`tell`: answers from people become labels, and the model says what they changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from sys import intern
from typing import Any

from envs.errors import DataError, nearest
from envs.pools.classes import Vocabulary, spelling
from labelling.model import Classifier, labels_of
from labelling.progress import Progress, measure
from labelling.project import Project
from labelling.state import ANNOTATOR, SKIP, State, check_class, conflicts
from labelling.tables import read_rows, shown

_LARGE = 20_000  # samples from which no similar id is searched for


@dataclass(frozen=True, slots=True)
class Answer:
    """One person's answer about a sample, and where it was given."""

    id: str
    label: str | None  # None: skip, "cannot tell"
    annotator: str = ANNOTATOR
    file: str = "Python"
    row: int = 0  # 1 is the header

    @property
    def place(self) -> str:
        return f"{self.file}, row {self.row}" if self.row else self.file


@dataclass(frozen=True)
class Told:
    """The outcome of a `tell`."""

    recorded: int  # answers that were new, or changed earlier ones
    corrected: int  # of these, those that changed earlier ones
    repeated: int  # answers that were known already
    new_classes: tuple[str, ...]
    conflicts: list[dict[str, Any]]  # see `labelling.state.conflicts`
    progress: Progress
    skipped: int = 0  # of the recorded ones, those that say "cannot tell"
    read_as: tuple[tuple[str, str], ...] = ()  # labels that spreadsheets wrote in their own way, and their classes


def read_answers(
    files: Sequence[str | Path], annotator: str = ANNOTATOR, encoding: str | None = None
) -> Iterator[Answer]:
    """Answers of CSV or Parquet files with the columns id and label, and maybe annotator; rows without a label wait.

    Raises:
        DataError: naming file, row and value.
    """
    for file in map(Path, files):
        name, found = str(file), False
        for number, values in read_rows(file, ["id", "label"], ["annotator"], encoding):
            if not values["label"]:
                continue
            if not values["id"]:
                raise DataError(f"{file}, row {number}: label {shown(values['label'])} has no id.")
            label = None if values["label"].lower() == SKIP else intern(values["label"])
            found = True
            yield Answer(intern(values["id"]), label, intern(values.get("annotator") or annotator), name, number)
        if not found:
            raise DataError(f"{file} holds no answer: its column label is empty throughout; fill it in.")


def tell_answers(
    project: Project,
    answers: Iterable[Answer],
    new_classes: Sequence[str] = (),
    classifier: Classifier | None = None,
) -> Told:
    """Record answers, all of them or none; then retrain and measure.

    The answers are on the disk before anything is trained. An answer replaces an earlier one of the same annotator.

    Args:
        answers: in any order.
        new_classes: classes that a project with fixed ones receives by this.
        classifier: in place of the project's own model.

    Raises:
        DataError: where an answer is about no sample, names no class, contradicts or repeats another one; nothing is
            recorded.
    """
    with project.lock():
        state = project.state()
        vocabulary = Vocabulary(state.classes, closed=bool(project.settings.classes))
        new, repeated, added = _check(project, state, answers, new_classes, vocabulary)
        changed = [a for a in new if a.annotator in state.votes.get(a.id, {})]
        if new or added:
            files = list(dict.fromkeys(a.file for a in new))
            place = {file: i for i, file in enumerate(files)}
            entries = [[a.id, a.label, a.annotator, place[a.file], a.row] for a in new]
            event = project.journal.append("told", files=files, new_classes=added, labels=entries)
            before, state = state, project.state()
            progress = measure(project, state, labels_of(project, before), classifier)
            try:
                project.journal.append("trained", after=event["n"], progress=asdict(progress))
            except DataError as error:
                raise DataError(f"The {len(new)} answers are recorded, the model's figures are not: {error}") from None
        else:
            progress = measure(project, state, None, classifier)
    skipped, read_as = sum(a.label is None for a in new), tuple(vocabulary.read_as.items())
    return Told(len(new), len(changed), repeated, tuple(added), conflicts(state), progress, skipped, read_as)


def _check(
    project: Project, state: State, answers: Iterable[Answer], new_classes: Sequence[str], vocabulary: Vocabulary
) -> tuple[list[Answer], int, list[str]]:
    """The answers that say something new, the number of the others, and the classes that come with them."""
    for name in new_classes:
        check_class(spelling(name))
        vocabulary.declare(name)
    first: dict[str, dict[str, Answer]] = {}  # annotator -> id
    for answer in answers:
        _check_sample(project, answer)
        answer = _with_class(answer, vocabulary)
        other = first.setdefault(answer.annotator, {}).setdefault(answer.id, answer)
        if other is not answer:
            _check_repetition(answer, other)
    missing = object()
    given = [answer for by_id in first.values() for answer in by_id.values()]
    new = [a for a in given if state.votes.get(a.id, {}).get(a.annotator, missing) != a.label]
    return new, len(given) - len(new), [name for name in vocabulary.names if name not in state.classes]


def _check_sample(project: Project, answer: Answer) -> None:
    """Refuse an answer about no sample."""
    if answer.id not in project.rows:
        hint = nearest(answer.id, project.rows) if len(project.rows) <= _LARGE else ""
        raise DataError(f"{answer.place}: no sample has the id {shown(answer.id)}.{hint} Nothing was recorded.")


def _with_class(answer: Answer, vocabulary: Vocabulary) -> Answer:
    """The answer with the class that its label means."""
    if answer.label is None:
        return answer
    try:
        label = answer.label if isinstance(answer.label, str) else spelling(answer.label)
        if label.strip().lower() == SKIP:
            return replace(answer, label=None)
        if not label.strip():
            raise DataError(f"the label is empty; leave the sample out, or say '{SKIP}' for 'cannot tell'.")
        name = vocabulary.find(label)
    except DataError as error:
        place = answer.place if answer.row else f"{answer.place} ({shown(answer.id)})"
        raise DataError(f"{place}: {error} Nothing was recorded.") from None
    return answer if name == answer.label else replace(answer, label=name)


def _check_repetition(answer: Answer, other: Answer) -> None:
    """Refuse an answer that repeats an earlier one of the same file, or contradicts one of the same annotator."""
    if other.label == answer.label and other.file == answer.file and other.row != answer.row:
        raise DataError(
            f"{answer.place}: {answer.annotator} calls {shown(answer.id)} {shown(answer.label or SKIP)} in row "
            f"{other.row} already; remove one of the rows. Nothing was recorded."
        )
    if other.label != answer.label:
        raise DataError(
            f"{answer.place}: {answer.annotator} calls {shown(answer.id)} {shown(answer.label or SKIP)}, and "
            f"{shown(other.label or SKIP)} in {other.place}. Keep one of them, or name the annotators in a column "
            "'annotator'. Nothing was recorded."
        )
