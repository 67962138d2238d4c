"""`tell`: answers of people enter the journal, and a model is trained on all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from envs.errors import DataError, nearest
from labelling.assessing import Assessment, assess
from labelling.learning import Classifier
from labelling.project import Project
from labelling.state import ANNOTATOR, SKIP, State, conflicts
from labelling.tables import read_rows, shown


class Answer(NamedTuple):
    """What an annotator says about a sample."""

    id: str
    label: str | None  # None: cannot tell
    annotator: str = ANNOTATOR
    file: str = ""  # where it stands, for messages; "": not in a file
    row: int = 0


@dataclass(frozen=True)
class Report:
    """What a tell changed."""

    new: int  # answers on samples that their annotator had not answered before
    corrected: int  # answers that replace another one of the same annotator
    unchanged: int  # answers that were known already
    skipped: int  # of the new and corrected ones, those without a label
    new_classes: tuple[str, ...]
    conflicts: list[dict[str, Any]]  # all that stand; see `labelling.state.conflicts`
    assessment: Assessment | None  # None where nothing changed, or two classes have no labels yet


def read_answers(
    files: Sequence[str | os.PathLike[str]], annotator: str = ANNOTATOR, encoding: str | None = None
) -> Iterator[Answer]:
    """Answers in CSV or Parquet files with the columns id and label, and maybe annotator; rows without label are left.

    Args:
        annotator: of rows that name none.
        encoding: of CSV files; None for UTF-8.

    Raises:
        DataError: naming file, row and value.
    """
    for file in files:
        name, found, rows = Path(file).name, False, False
        for number, values in read_rows(file, ["id", "label"], ["annotator"], encoding):
            rows = True
            label = values["label"]
            if not label:
                continue
            found = True
            if not values["id"]:
                raise DataError(f"{file}, row {number}: label {shown(label)} has no id; name its sample.")
            skip = label.lower() == SKIP
            yield Answer(values["id"], None if skip else label, values.get("annotator") or annotator, name, number)
        if not found:
            what = "its column label is empty in every row; fill it in" if rows else "it has a header, but no row"
            raise DataError(f"{file} holds no answer: {what}.")


def tell_answers(
    project: Project,
    answers: Iterable[Answer],
    classifier: Classifier | None = None,
    new_classes: Sequence[str] = (),
) -> Report:
    """Record answers, all of them or none; then train on everything that is known.

    Once the answers are on the disk nothing that happens later takes them back.

    Args:
        answers: each annotator's latest answer on a sample counts.
        classifier: to be trained in place of the project's own model.
        new_classes: classes to add where the project's classes are fixed.

    Raises:
        DataError: naming file, row and value; nothing is recorded then.
        ConfigError: where a new class has no proper name, or the classifier fails its interface; answers are kept.
    """
    with project.lock():
        state = project.state()
        added = _added_classes(project, state, new_classes)
        wanted = _checked(project, state, answers, added)
        changed, unchanged, corrected = [], 0, 0
        for answer in wanted:
            votes = state.votes.get(answer.id, {})
            if answer.annotator in votes and votes[answer.annotator] == answer.label:
                unchanged += 1
                continue
            corrected += answer.annotator in votes
            changed.append(answer)
        if changed or added:
            files = list(dict.fromkeys(answer.file for answer in changed if answer.file))
            place = {file: i for i, file in enumerate(files)}
            labels = [[a.id, a.label, a.annotator, place.get(a.file, -1), a.row] for a in changed]
            event = project.journal.append("told", files=files, new_classes=added, labels=labels)
            state = project.state()
            assessment = assess(project, state, classifier)
            if assessment is not None:
                project.journal.append("trained", after=event["n"], **assessment.content())
        else:
            assessment = None
    return Report(
        new=len(changed) - corrected,
        corrected=corrected,
        unchanged=unchanged,
        skipped=sum(answer.label is None for answer in changed),
        new_classes=tuple(added),
        conflicts=conflicts(state),
        assessment=assessment,
    )


def _added_classes(project: Project, state: State, new_classes: Sequence[str]) -> list[str]:
    """Classes of --new-class that are new, in their order."""
    names = [name.strip() for name in new_classes]
    for name in names:
        if not name or name.lower() == SKIP:
            raise DataError(f"New class {shown(name)}: a class needs a name other than '{SKIP}', for 'cannot tell'.")
        _check_spelling(name, state.classes, f"new class {shown(name)}")
    return [name for name in dict.fromkeys(names) if name not in state.classes]


def _checked(project: Project, state: State, answers: Iterable[Answer], added: list[str]) -> list[Answer]:
    """The answers, without repetitions; extends `added` by classes that come with them where these are open."""
    classes = {*state.classes, *added}
    first: dict[tuple[str, str], Answer] = {}
    for answer in answers:
        at = f"{answer.file}, row {answer.row}" if answer.file else f"answer on {shown(answer.id)}"
        if answer.id not in project.rows:
            raise DataError(
                f"{at}: no sample has the id {shown(answer.id)}.{_nearest_id(project, answer.id)} Nothing was recorded."
            )
        if answer.label is not None and answer.label not in classes:
            if project.settings.classes:
                raise DataError(
                    f"{at}: label {shown(answer.label)} of {shown(answer.id)} is not among the classes."
                    f"{nearest(answer.label, classes)} Classes: {', '.join([*state.classes, *added])}. "
                    "--new-class NAME adds one. Nothing was recorded."
                )
            _check_spelling(answer.label, classes, f"{at}: label {shown(answer.label)}")
            classes.add(answer.label)
            added.append(answer.label)
        earlier = first.setdefault((answer.annotator, answer.id), answer)
        if earlier is answer:
            continue
        if earlier.label != answer.label or (answer.file and earlier.file == answer.file):
            raise DataError(_repeated(answer, earlier, at))
    return list(first.values())


def _check_spelling(name: str, classes: Iterable[str], what: str) -> None:
    """Refuse a class that differs from another one in case or blanks only."""
    folded = " ".join(name.casefold().split())
    for other in classes:
        if other != name and " ".join(other.casefold().split()) == folded:
            raise DataError(f"{what} is spelt like the class {shown(other)} but for case or blanks; write {other}.")


def _repeated(answer: Answer, earlier: Answer, at: str) -> str:
    def said(label: str | None) -> str:
        return shown(SKIP if label is None else label)

    where = f"{earlier.file}, row {earlier.row}" if earlier.file else "an earlier answer"
    if earlier.label == answer.label:
        return (
            f"{at}: {shown(answer.id)} is labelled {said(answer.label)} in row {earlier.row} already; "
            "remove one of the rows. Nothing was recorded."
        )
    return (
        f"{at}: {shown(answer.id)} is labelled {said(answer.label)}, but {said(earlier.label)} in {where}, both by "
        f"{shown(answer.annotator)}. Remove one, or name two annotators (column annotator, or --annotator with "
        "one file after the other). Nothing was recorded."
    )


def _nearest_id(project: Project, wrong: str) -> str:
    """A hint, where looking for one is quick."""
    return nearest(wrong, project.rows) if len(project.rows) <= 20_000 else ""
