"""Label Studio: a batch as tasks with pre-annotations, and its exports as answers. Needs no server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from envs.errors import ConfigError, DataError, shown
from envs.files import write_text
from envs.pools.media import is_address, picture_type, sound_type
from envs.reading import read_json
from labelling.answers import Answer, latest
from labelling.asking import shown_rows
from labelling.events import Asked
from labelling.identity import KEY, Identity
from labelling.project import Project
from labelling.state import ANNOTATOR, SKIP
from labelling.tables import PARQUET, read_rows

LARGEST = 2_000_000  # bytes of a picture or sound that goes into a task itself
_SHOWN = 5  # choices that a message names
CHOICE = "label"  # name of the choices
_TAGS = {"picture": "Image", "text": "Text", "audio": "Audio"}


_AGAIN = "Export the project that `ask --label-studio` filled, as JSON."


def write_tasks(
    project: Project, event: Asked, media_url: str | None = None, left_out: list[str] | None = None
) -> tuple[Path, Path]:
    """Write a batch for Label Studio's import, and the labelling interface; returns both files.

    Args:
        event: the batch, as `labelling.asking.ask` gives it.
        media_url: what comes before the absolute path of a picture or sound in its address, such as
            "/data/local-files/?d=" for a server with the document root "/"; None: tasks hold the files themselves.
        left_out: see `make_tasks`.

    Raises:
        ConfigError: where fewer than two classes are known; see also `make_tasks`.
    """
    interface = project.path / "label_studio.xml"
    file = project.batch_file(event.batch).with_suffix(".json")
    xml = labelling_interface(project)
    write_text(file, json.dumps(make_tasks(project, event, media_url, left_out), ensure_ascii=False, indent=1) + "\n")
    write_text(interface, xml)
    return file, interface


def labelling_interface(project: Project) -> str:
    """What Label Studio shows for each task, as its XML: the sample, why it was chosen, and one choice of class.

    Raises:
        ConfigError: where fewer than two classes are known.
    """
    classes = project.state().classes
    if len(classes) < 2:
        raise ConfigError(
            f"{project.path} knows {len(classes)} classes and Label Studio shows those that there are to choose from; "
            "name them with `init --classes`, or `tell` some labels by CSV first."
        )
    view = ElementTree.Element("View")
    for kind in project.shown_columns:
        size = {"maxWidth": "400px"} if kind == "picture" else {}  # small ones would fill the page
        ElementTree.SubElement(view, _TAGS[kind], {"name": kind, "value": f"${kind}"} | size)
    if not project.shown_columns:
        ElementTree.SubElement(view, "Text", name="sample", value="$sample")
    ElementTree.SubElement(view, "Header", value="$why", size="5")
    choices = ElementTree.SubElement(
        view, "Choices", name=CHOICE, toName=_object(project), choice="single", required="true", showInLine="true"
    )
    for name in classes:
        ElementTree.SubElement(choices, "Choice", value=name)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def make_tasks(
    project: Project, event: Asked, media_url: str | None = None, left_out: list[str] | None = None
) -> list[dict[str, Any]]:
    """A batch as Label Studio's tasks: data (sample, batch, what to show, why), and a prediction where there is one.

    Args:
        left_out: receives what is wrong with the picture or sound of a sample, which gets no task then.

    Raises:
        ConfigError: where no task is left, and a file is too large to be held in one.
        DataError: where no task is left, and a picture or sound cannot be read.
    """
    tasks, identity, problem = [], Identity(project), None
    for row in shown_rows(project, event):
        data = {"sample": row["id"], "batch": event.batch, "why": row["why"], KEY: identity.key(row["id"])}
        try:
            for kind in project.shown_columns:
                data[kind] = row[kind] if kind == "text" else _address(kind, row[kind], media_url)
        except (ConfigError, DataError) as error:
            problem = problem or error
            if left_out is not None:
                left_out.append(f"{shown(row['id'])}: {error}")
            continue
        task: dict[str, Any] = {"data": data}
        if row["predicted"]:
            result: dict[str, Any] = {"from_name": CHOICE, "to_name": _object(project), "type": "choices"}
            result["value"] = {"choices": [row["predicted"]]}
            version = f"{project.settings.name}, batch {event.batch}"
            task["predictions"] = [{"model_version": version, "score": row["confidence"], "result": [result]}]
        tasks.append(task)
    if problem is not None and not tasks:
        raise problem
    return tasks


def is_label_studios(file: str | Path, columns: Sequence[str]) -> bool:
    """Whether a table with these columns is an export of Label Studio, whose id is a number of its own.

    Raises:
        DataError: where it is one, but does not say which samples it is about.
    """
    if "annotation_id" not in columns and not ("lead_time" in columns and {"created_at", "sample"} & set(columns)):
        return False
    if "sample" in columns or KEY in columns:
        return "sample" in columns
    raise DataError(
        f"{file}, row 1: this is Label Studio's export, whose id is its own number of a task, and it has no column "
        f"'sample'. {_AGAIN}"
    )


def read_table(
    file: Path, annotator: str | None = None, encoding: str | None = None, left_out: list[str] | None = None
) -> list[Answer]:
    """Answers of a CSV or TSV export, the latest of each person about each sample; see `read_export`."""

    def answers() -> Iterator[Answer]:
        is_cell = file.suffix.lower() not in PARQUET
        optional = ["annotator", "created_at", "updated_at", KEY]
        for number, values in read_rows(file, ["sample", "label"], optional, encoding):
            when = values.get("updated_at") or values.get("created_at", "")
            who = annotator or values.get("annotator") or ANNOTATOR
            answer = Answer(values["sample"], None, who, str(file), number, "row", values.get(KEY, ""), is_cell, when)
            yield from _chosen(answer, _flat_label(values["label"]), left_out)

    return latest(answers())


def read_export(file: str | Path, annotator: str | None = None, left_out: list[str] | None = None) -> Iterator[Answer]:
    """Answers of a JSON or JSON-MIN export; tasks without an annotation wait, cancelled annotations mean "cannot tell".

    Args:
        annotator: who answered; None: whom Label Studio names.
        left_out: receives the tasks that name no sample and the annotations that are not one choice of class.

    Raises:
        DataError: where the file is none, or holds no answer.
    """
    tasks = read_json(Path(file), "is not JSON ({reason}); export from Label Studio as JSON", kind=object)
    problems: list[str] = [] if left_out is None else left_out
    before = len(problems)
    answers = answers_of(tasks, str(file), annotator, problems)
    if not answers:
        why = f" {problems[before]}. {_AGAIN}" if len(problems) > before else ""
        raise DataError(f"{file} holds no answer: none of its {len(tasks)} tasks has an annotation to take.{why}")
    yield from answers


def answers_of(tasks: Any, place: str, annotator: str | None = None, left_out: list[str] | None = None) -> list[Answer]:
    """Answers of tasks as Label Studio exports them, the latest of each person about each sample; see `read_export`."""
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{place} is no list of tasks. {_AGAIN}")

    def answers() -> Iterator[Answer]:
        for number, task in enumerate(tasks, 1):
            is_flat = "data" not in task and "sample" in task  # JSON-MIN
            data = task if is_flat else task.get("data")
            annotations = [task] if is_flat else task.get("annotations")
            sample = data.get("sample") if isinstance(data, dict) else None
            if not isinstance(sample, str) or not isinstance(annotations, list):
                what = "data.sample is missing" if not isinstance(sample, str) else "it has no list of annotations"
                _leave_out(left_out, f"{place}, task {number}: {what}")
                continue
            for annotation in annotations:
                try:
                    label = _flat_label(task.get(CHOICE)) if is_flat else _label(annotation)
                    by = annotation.get("annotator" if is_flat else "completed_by")
                    who = annotator or _annotator(by)
                    when = str(annotation.get("updated_at") or annotation.get("created_at") or "")
                except (AttributeError, KeyError, TypeError) as error:
                    _leave_out(
                        left_out, f"{place}, task {number} ({shown(sample)}): no annotation of choices ({error})"
                    )
                    continue
                key = str(data.get(KEY) or "")
                also = "" if annotator else _number(by)
                answer = Answer(sample, None, who, place, number, "task", key, False, when, also)
                yield from _chosen(answer, label, left_out)

    return latest(answers())


def _chosen(answer: Answer, labels: list[Any] | None, left_out: list[str] | None) -> Iterator[Answer]:
    """The answer with the one class that was chosen; nothing where none was, or several were."""
    if labels is None:
        yield answer
    elif len(labels) == 1 and isinstance(labels[0], str):
        yield replace(answer, label=None if labels[0].lower() == SKIP else labels[0])
    elif labels:
        words = ", ".join(shown(label) for label in labels[:_SHOWN]) + (", ..." if len(labels) > _SHOWN else "")
        what = f"{len(labels)} choices ({words}), and not one of choices" if len(labels) > 1 else f"no class ({words})"
        _leave_out(left_out, f"{answer.place} ({shown(answer.id)}): {what}")


def _leave_out(left_out: list[str] | None, what: str) -> None:
    if left_out is not None:
        left_out.append(what)


def _label(annotation: dict[str, Any]) -> list[Any] | None:
    """The chosen classes; None where the annotator skipped. Other results, as relations between tags, say nothing."""
    if annotation.get("was_cancelled"):
        return None
    results = [r for r in annotation["result"] if r.get("from_name") == CHOICE]
    chosen: list[Any] = []
    for result in results:
        choices = result["value"]["choices"]
        chosen += choices if isinstance(choices, list) else [choices]
    return chosen


def _flat_label(value: Any) -> list[Any]:
    """The chosen classes of an export with one value for each tag: a text, or several choices as JSON has them."""
    if isinstance(value, str) and value.startswith("{"):
        with suppress(ValueError, RecursionError):
            parsed = json.loads(value)
            value = parsed if isinstance(parsed, dict) and "choices" in parsed else value
    if isinstance(value, dict):
        value = value.get("choices")
    if isinstance(value, list):
        return value
    return [] if value in (None, "") else [value]


def _annotator(who: Any) -> str:
    """A name for whoever an export calls completed_by: a number, or a user."""
    if isinstance(who, dict):
        who = who.get("email") or who["id"]
    return ANNOTATOR if who is None else str(who)


def _number(who: Any) -> str:
    """The number of whoever is known by a mail address; exports of other releases give that alone."""
    return str(who["id"]) if isinstance(who, dict) and who.get("email") and "id" in who else ""


def _object(project: Project) -> str:
    """Name of the tag that the choices belong to."""
    return next(iter(project.shown_columns), "sample")


def _address(kind: str, path: str, media_url: str | None) -> str:
    """The address by which a browser loads a file."""
    if not path or is_address(path):
        return path
    if media_url is not None:
        return media_url + quote(str(Path(path).absolute()).lstrip("/"))
    return file_in_task(kind, path)


def file_in_task(kind: str, path: str) -> str:
    """A picture or sound as the address that holds it itself; its content must be one, whatever its name.

    Raises:
        ConfigError: where it is too large.
        DataError: where it cannot be read, or is something else.
    """
    try:
        size = Path(path).stat().st_size
        if size > LARGEST:
            raise ConfigError(
                f"{path} has {size:,} bytes, and a task holds files of up to {LARGEST:,}; serve them, and name the "
                "address with --media-url."
            )
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from None
    found = picture_type(content) if kind == "picture" else sound_type(content)
    if found is None:
        raise DataError(
            f"{path} is no {'picture' if kind == 'picture' else 'sound'} in a format that is known, whatever its name; "
            "only such files go into tasks. Correct the file, or serve it and name the address with --media-url."
        )
    return f"data:{found};base64,{base64.b64encode(content).decode()}"
