"""Label Studio: a batch as tasks with pre-annotations, and its JSON export as answers. Needs no server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from envs.errors import ConfigError, DataError
from envs.files import write_text
from envs.pools.media import picture_type, sound_type
from labelling.asking import shown_rows
from labelling.journal import Event
from labelling.project import Project
from labelling.state import ANNOTATOR
from labelling.tables import shown
from labelling.telling import Answer

LARGEST = 2_000_000  # bytes of a picture or sound that goes into a task itself
CHOICE = "label"  # name of the choices
_TAGS = {"picture": "Image", "text": "Text", "audio": "Audio"}


def write_tasks(project: Project, event: Event, media_url: str | None = None) -> tuple[Path, Path]:
    """Write a batch for Label Studio's import, and the labelling interface; returns both files.

    Args:
        event: the batch, as `labelling.asking.ask` gives it.
        media_url: what comes before the absolute path of a picture or sound in its address, such as
            "/data/local-files/?d=" for a server with the document root "/"; None: tasks hold the files themselves.

    Raises:
        ConfigError: where fewer than two classes are known, or a file is too large to be held in a task.
        DataError: where a picture or sound cannot be read.
    """
    interface = project.path / "label_studio.xml"
    file = project.batch_file(event["batch"]).with_suffix(".json")
    xml = labelling_interface(project)
    write_text(file, json.dumps(make_tasks(project, event, media_url), ensure_ascii=False, indent=1) + "\n")
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


def make_tasks(project: Project, event: Event, media_url: str | None = None) -> list[dict[str, Any]]:
    """A batch as Label Studio's tasks: data (sample, batch, what to show, why), and a prediction where there is one."""
    tasks = []
    for row in shown_rows(project, event):
        data = {"sample": row["id"], "batch": event["batch"], "why": row["why"]}
        for kind in project.shown_columns:
            data[kind] = row[kind] if kind == "text" else _address(kind, row[kind], media_url)
        task: dict[str, Any] = {"data": data}
        if row["predicted"]:
            result: dict[str, Any] = {"from_name": CHOICE, "to_name": _object(project), "type": "choices"}
            result["value"] = {"choices": [row["predicted"]]}
            version = f"{project.settings.name}, batch {event['batch']}"
            task["predictions"] = [{"model_version": version, "score": row["confidence"], "result": [result]}]
        tasks.append(task)
    return tasks


def read_export(file: str | Path, annotator: str | None = None) -> Iterator[Answer]:
    """Answers of a JSON export; tasks without an annotation wait, cancelled annotations mean "cannot tell".

    Args:
        annotator: who answered; None: whom Label Studio names.

    Raises:
        DataError: where the file is none, naming task and value.
    """
    try:
        tasks = json.loads(Path(file).read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(f"Cannot read {file}: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{file} is not JSON ({error}); export from Label Studio as JSON.") from None
    found = False
    for answer in answers_of(tasks, str(file), annotator):
        found = True
        yield answer
    if not found:
        raise DataError(f"{file} holds no answer: none of its {len(tasks)} tasks has an annotation.")


def answers_of(tasks: Any, place: str, annotator: str | None = None) -> Iterator[Answer]:
    """Answers of tasks with their annotations, as Label Studio exports them. See `read_export`."""
    again = "Export the project that `ask --label-studio` filled, as JSON (not JSON-MIN)."
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{place} is no list of tasks. {again}")
    for number, task in enumerate(tasks, 1):
        data, annotations = task.get("data"), task.get("annotations")
        if not isinstance(data, dict) or not isinstance(data.get("sample"), str):
            raise DataError(f"{place}, task {number}: data.sample is missing. {again}")
        if not isinstance(annotations, list):
            raise DataError(f"{place}, task {number}: it has no list of annotations. {again}")
        latest: dict[str, tuple[str, Answer]] = {}
        for annotation in annotations:
            try:
                label = _label(annotation)
                who = annotator or _annotator(annotation.get("completed_by"))
                when = str(annotation.get("updated_at") or annotation.get("created_at") or "")
            except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
                raise DataError(
                    f"{place}, task {number} ({shown(data['sample'])}): an annotation is not one choice of class "
                    f"({error}). {again}"
                ) from None
            if label == "":
                continue
            if who not in latest or when >= latest[who][0]:
                latest[who] = when, Answer(data["sample"], label, who, f"{place}, task {number}")
        yield from (answer for _, answer in latest.values())


def _label(annotation: dict[str, Any]) -> str | None:
    """The chosen class; None where the annotator skipped, "" where nothing is chosen yet."""
    if annotation.get("was_cancelled"):
        return None
    chosen = [r["value"]["choices"] for r in annotation["result"] if r["from_name"] == CHOICE]
    if not chosen:
        return ""
    (choices,) = chosen
    (label,) = choices
    if not isinstance(label, str):
        raise TypeError(f"the choice is {label!r}")
    return label


def _annotator(who: Any) -> str:
    """A name for whoever an export calls completed_by: a number, or a user."""
    if isinstance(who, dict):
        who = who.get("email") or who["id"]
    return ANNOTATOR if who is None else str(who)


def _object(project: Project) -> str:
    """Name of the tag that the choices belong to."""
    return next(iter(project.shown_columns), "sample")


def _address(kind: str, path: str, media_url: str | None) -> str:
    """The address by which a browser loads a file."""
    if not path:
        return ""
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
