"""Label Studio without a server: what its import receives, what its exports mean, which files are refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

import run
from envs.errors import DataError
from labelling.api import LabellingProject
from labelling.creating import create_project, samples_from_pool
from labelling.label_studio import tasks as label_studio
from labelling.label_studio.server import TOKEN
from labelling.label_studio.tasks import answers_of, labelling_interface, make_tasks, read_export
from labelling.project import Settings
from tests.support.label_studio import CLASSES


@pytest.fixture
def project(tmp_path: Path) -> LabellingProject:
    create_project(tmp_path / "shop", samples_from_pool("emoji", False), Settings("shop", classes=CLASSES, budget=100))
    return LabellingProject(tmp_path / "shop")


def annotated(task: dict[str, Any], *annotations: dict[str, Any]) -> dict[str, Any]:
    """A task as it is exported."""
    return task | {"id": 7, "annotations": list(annotations)}


def choice(label: str, **other: Any) -> dict[str, Any]:
    value = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [label]}}
    return {"result": [value], "was_cancelled": False, "completed_by": 1} | other


def test_a_batch_goes_there_and_comes_back(project: LabellingProject, tmp_path: Path, capsys) -> None:
    folder = str(project.project.path)
    for number, label in ((1, CLASSES[1]), (2, CLASSES[4])):
        assert run.main(["ask", folder, "--batch", "6", "--label-studio"]) == 0
        tasks = json.loads((project.project.path / "batches" / f"batch-{number:04d}.json").read_text("utf-8"))
        assert len(tasks) == 6
        for task in tasks:
            data = task["data"]
            row = project.project.rows[data["sample"]]
            kind, content = data["picture"].split(";base64,")
            assert kind == "data:image/png" and base64.b64decode(content)[1:4] == b"PNG"
            assert data["text"] == project.project.show(row)["text"] and data["why"] and data["batch"] == number
        xml = ElementTree.parse(project.project.path / "label_studio.xml").getroot()
        shown = {tag.get("name"): tag.get("value") for tag in xml if tag.tag in ("Image", "Text", "Audio")}
        assert shown == {"picture": "$picture", "text": "$text"}
        choices = xml.find("Choices")
        assert choices.get("toName") in shown and [c.get("value") for c in choices] == list(CLASSES)
        export = [annotated(task, choice(label if i % 2 else CLASSES[0])) for i, task in enumerate(tasks)]
        file = tmp_path / f"export-{number}.json"
        file.write_text(json.dumps(export), "utf-8")
        assert run.main(["tell", folder, str(file)]) == 0
        assert "6 answers" in capsys.readouterr().out
    state = project.project.state()
    assert len(state.votes) == 12 and all(list(votes) == ["1"] for votes in state.votes.values())
    (task, *_) = make_tasks(project.project, project.project.state().batches[-1])
    (prediction,) = task["predictions"]  # two classes were known by then
    (result,) = prediction["result"]
    assert result["value"]["choices"][0] in CLASSES and 0 < prediction["score"] <= 1
    assert (result["from_name"], result["to_name"]) == (choices.get("name"), choices.get("toName"))
    assert run.main(["tell", folder, str(file)]) == 0  # again
    assert "6 were known" in capsys.readouterr().out


def test_files_that_are_served(project: LabellingProject, tmp_path: Path) -> None:
    project.ask(3)
    event = project.project.state().waiting()
    for task in make_tasks(project.project, event, "/data/local-files/?d="):
        path = unquote(task["data"]["picture"].removeprefix("/data/local-files/?d="))
        assert Path("/", path).is_file()


NAMES = st.text(min_size=1, max_size=8)
PEOPLE = st.integers(1, 3)
SAID = st.lists(st.tuples(NAMES, st.none() | NAMES, PEOPLE), max_size=8, unique_by=lambda a: a[::2])


@given(SAID, st.booleans())
def test_what_is_said_is_what_is_read(said: list[tuple[str, str | None, int]], by_mail: bool) -> None:
    tasks: dict[str, dict[str, Any]] = {}
    for sample, label, who in said:
        by = {"id": who, "email": f"{who}@example.org"} if by_mail else who
        given = choice("", completed_by=by, was_cancelled=True) if label is None else choice(label, completed_by=by)
        task = tasks.setdefault(sample, annotated({"data": {"sample": sample}}))
        task["annotations"].append(given)
    found = sorted((a.id, str(a.label), a.annotator) for a in answers_of(list(tasks.values()), "export"))
    assert found == sorted((s, str(label), f"{who}@example.org" if by_mail else str(who)) for s, label, who in said)


def test_an_export_may_begin_with_a_mark(tmp_path: Path) -> None:
    tasks = [annotated({"data": {"sample": "a"}}, choice("new"))]
    (tmp_path / "export.json").write_text(json.dumps(tasks), "utf-8-sig")
    assert [(a.id, a.label) for a in read_export(tmp_path / "export.json")] == [("a", "new")]


def test_corrections_skips_and_waiting_tasks() -> None:
    task = {"data": {"sample": "a"}}
    tasks = [
        annotated(task, choice("old", updated_at="2026-01-01"), choice("new", updated_at="2026-01-02")),
        annotated({"data": {"sample": "b"}}, choice("new", was_cancelled=True)),
        annotated({"data": {"sample": "c"}}, choice("", result=[])),
        annotated({"data": {"sample": "d"}}),
    ]
    assert [(a.id, a.label) for a in answers_of(tasks, "export")] == [("a", "new"), ("b", None)]
    assert [a.annotator for a in answers_of(tasks, "export", "anna")] == ["anna", "anna"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("{}", "no list of tasks"),
        ('[{"id": 1, "label": "x", "annotator": 1}]', "task 1: data.sample is missing"),
        ('[{"data": {"sample": "a"}}]', "no list of annotations"),
        ('[{"data": {"sample": "a"}, "annotations": []}]', "holds no answer"),
        ('[{"data": {"sample": "a"}, "annotations": [{"result": [{"from_name": "label", "value": {}}]}]}]', "choices"),
        ('[{"data": {"sample": "a"}, "annotations": [3]}]', "task 1 \\('a'\\)"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "export.json").write_text(content)
    with pytest.raises(DataError, match=words):
        list(read_export(tmp_path / "export.json"))


def test_mistakes_are_said(project: LabellingProject, tmp_path: Path, capsys, monkeypatch) -> None:
    def said(*words: str) -> str:
        assert run.main(list(words)) == 2
        return capsys.readouterr().err

    folder = str(project.project.path)
    project.ask(3)
    monkeypatch.delenv(TOKEN, raising=False)
    assert "Give files" in said("tell", folder)
    assert "no such file" in said("tell", folder, str(tmp_path / "none.json"))
    assert "give both" in said("ask", folder, "--media-url", "/data/")
    assert "begins with http" in said("ask", folder, "--label-studio", "localhost:8080")
    assert "has sent nothing" in said("tell", folder, "--label-studio", "http://localhost:9")
    error = said("ask", folder, "--label-studio", "http://localhost:9")
    assert TOKEN in error or "pip install" in error
    monkeypatch.setattr(label_studio, "LARGEST", 10)
    assert "--media-url" in said("ask", folder, "--label-studio")
    create_project(tmp_path / "open", samples_from_pool("emoji", False), Settings("open"))
    assert "init --classes" in said("ask", str(tmp_path / "open"), "--label-studio")
    with pytest.raises(Exception, match="knows 0 classes"):
        labelling_interface(LabellingProject(tmp_path / "open").project)
