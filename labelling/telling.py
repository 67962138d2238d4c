"""`tell`: answers from people become labels, and the model says what they changed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from sys import intern
from typing import Any

from envs.errors import DataError, shown
from envs.names import is_storable
from envs.pools.checks import LONGEST_NAME
from envs.pools.classes import Vocabulary, is_one_line, spelling, visible
from labelling import events
from labelling.answers import Answer, supersedes
from labelling.identity import KEY, Identity
from labelling.label_studio.tasks import is_label_studios, read_table
from labelling.model import Classifier, labels_of
from labelling.progress import Progress, measure
from labelling.project import Project
from labelling.spreadsheets import unguarded
from labelling.state import ANNOTATOR, SKIP, State, check_class, conflicts, people_of
from labelling.tables import PARQUET, columns_of, read_rows

_NOBODY = ("", "nan", "none", "null", "<na>", "n/a")  # annotators as tables write that there is none


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
    files: Sequence[str | Path],
    annotator: str | None = None,
    encoding: str | None = None,
    left_out: list[str] | None = None,
    ids: Container[str] | None = None,
) -> Iterator[Answer]:
    """Answers of CSV or Parquet files with the columns id and label, and maybe annotator; rows without a label wait.

    Label Studio's tables are known by their columns: there the id is its own, and the sample has a column.

    Args:
        annotator: who answered, where no column says it.
        left_out: receives what of Label Studio's was left out, and why.
        ids: of all samples, so that the halves of a row that an unquoted line break divided are recognised.

    Raises:
        DataError: naming file, row and value.
    """
    for file in map(Path, files):
        if is_label_studios(file, columns_of(file, encoding)):
            answers = iter(read_table(file, annotator, encoding, left_out))
        else:
            answers = _own(file, annotator or ANNOTATOR, encoding, ids)
        found = False
        for answer in answers:
            found = True
            yield answer
        if not found:
            raise DataError(f"{file} holds no answer: its column label is empty throughout; fill it in.")


def _own(file: Path, annotator: str, encoding: str | None, ids: Container[str] | None) -> Iterator[Answer]:
    """Answers of a batch, or of a table that people made."""
    name, short = str(file), list[int]()
    keyed = KEY in columns_of(file, encoding)
    is_cell = file.suffix.lower() not in PARQUET
    for number, values in read_rows(file, ["id", "label"], ["annotator", KEY], encoding, short):
        sample, key = values["id"], values.get(KEY, "")
        if short and short[-1] == number and (keyed if values["label"] else ids is not None and sample not in ids):
            raise DataError(
                f"{file}, row {number}: it has too few values (it begins with {shown(sample)}), and is no row of which "
                "a spreadsheet left out empty cells; quote values that hold the separator or a line break."
            )
        if not values["label"]:
            continue
        if not sample and not key:
            raise DataError(f"{file}, row {number}: label {shown(values['label'])} has no id.")
        label = None if values["label"].lower() == SKIP else intern(unguarded(values["label"]))
        who = values.get("annotator", "")
        who = annotator if who.casefold() in _NOBODY else who
        yield Answer(intern(sample), label, intern(who), name, number, key=key, is_cell=is_cell)


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
            place = {file: i for i, file in enumerate(dict.fromkeys(a.file for a in new))}
            entries = [[a.id, a.label, a.annotator, place[a.file], a.row] for a in new]
            files = [_whole_path(file) for file in place]
            event = project.journal.append("told", files=files, new_classes=added, labels=entries)
            before, state = state, project.state()
            progress = measure(project, state, labels_of(project, before), classifier)
            try:
                project.journal.append("trained", after=event.n, progress=asdict(progress))
            except DataError as error:
                raise DataError(f"The {len(new)} answers are recorded, the model's figures are not: {error}") from None
        else:
            progress = measure(project, state, None, classifier)
    skipped, read_as = sum(a.label is None for a in new), tuple(vocabulary.read_as.items())
    return Told(len(new), len(changed), repeated, tuple(added), conflicts(state), progress, skipped, read_as)


def person_of_file(project: Project, file: str | Path, others: Iterable[str | Path] = ()) -> str:
    """Who answered in a file that is called after its annotator.

    Args:
        others: files of the same command.

    Raises:
        DataError: where another file of that name has brought answers already: it may be another person's.
    """
    path, who = Path(file).absolute(), Path(file).stem
    known = [Path(name) for event in project.journal.read() for name in _files_of(event, who)]
    for other in [*(Path(name).absolute() for name in others), *known]:
        same = path == other if other.is_absolute() else path.parts[-len(other.parts) :] == other.parts
        if other.stem.casefold() == who.casefold() and not same:
            raise DataError(
                f"{file}: by the files' names {shown(who)} is the annotator of {other} already. If this is somebody "
                f"else's, give it another name; if not, say --annotator {who}. Nothing was recorded."
            )
    return who


def _files_of(event: events.Event, who: str) -> list[str]:
    """The files of an event in which an annotator answered."""
    if not isinstance(event, events.Told):
        return []
    return [event.files[i] for i in {i for _, _, name, i, *_ in event.labels if name == who}]


def _whole_path(file: str) -> str:
    """A file as the journal names it, so that two of one name can be told apart later."""
    path = Path(file)
    return str(path.absolute()) if path.is_file() else file


def _check(
    project: Project, state: State, answers: Iterable[Answer], new_classes: Sequence[str], vocabulary: Vocabulary
) -> tuple[list[Answer], int, list[str]]:
    """The answers that say something new, the number of the others, and the classes that come with them."""
    for name in new_classes:
        check_class(spelling(name))
        vocabulary.declare(name)
    first: dict[str, dict[str, Answer]] = {}  # annotator -> id
    identity = Identity(project)
    people = {who.casefold(): who for who in people_of(state)}
    for answer in answers:
        sample = identity.find(answer.id, answer.key, answer.is_cell, answer.place)
        if sample != answer.id:
            answer = replace(answer, id=intern(sample))
        if answer.also.casefold() in people and answer.annotator.casefold() not in people:
            answer = replace(answer, annotator=people[answer.also.casefold()])
        _check_person(answer, people)
        answer = _with_class(answer, vocabulary)
        by_id = first.setdefault(answer.annotator, {})
        other = by_id.setdefault(answer.id, answer)
        if other is answer:
            continue
        if answer.when and other.when:
            by_id[answer.id] = answer if supersedes(answer, other) else other
        else:
            _check_repetition(answer, other)
    missing = object()
    given = [answer for by_id in first.values() for answer in by_id.values()]
    new = [a for a in given if state.votes.get(a.id, {}).get(a.annotator, missing) != a.label]
    return new, len(given) - len(new), [name for name in vocabulary.names if name not in state.classes]


def _check_person(answer: Answer, people: dict[str, str]) -> None:
    """Refuse what is no name, and one in another case than before: one person must not vote twice."""
    if not isinstance(answer.annotator, str):
        raise DataError(f"{answer.place}: annotator {shown(answer.annotator)} is no text. Nothing was recorded.")
    known = people.get(answer.annotator.casefold())
    if known is None:
        _check_new_person(answer)
        known = people[answer.annotator.casefold()] = answer.annotator
    if known != answer.annotator:
        raise DataError(
            f"{answer.place}: annotator {shown(answer.annotator)} differs from {shown(known)} by case only; write one "
            "of the two. Nothing was recorded."
        )


def _check_new_person(answer: Answer) -> None:
    name = answer.annotator
    if len(name) > LONGEST_NAME:
        raise DataError(
            f"{answer.place}: annotator {shown(name)} has {len(name):,} characters; at most {LONGEST_NAME} are "
            "possible. Nothing was recorded."
        )
    if not name.strip() or visible(name) != spelling(name) or not (is_one_line(name) and is_storable(name)):
        raise DataError(
            f"{answer.place}: annotator {shown(name)}: a name needs one line of characters that are seen. Nothing was "
            "recorded."
        )


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
