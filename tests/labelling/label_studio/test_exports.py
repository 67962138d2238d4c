"""What Label Studio exports, as tables and as JSON: whose answer, when, and what is left out."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from labelling.answers import moment
from labelling.api import LabellingProject
from labelling.events import Told
from labelling.identity import KEY, Identity
from labelling.label_studio.server import there
from labelling.state import summary_of
from tests.support.labelling import IDS, annotation, init, labels, task, tell, told


@pytest.fixture
def project(tmp_path: Path) -> LabellingProject:
    return init(tmp_path, IDS, text=[f"text {i}" for i in range(len(IDS))])


HEADER = "annotation_id,annotator,batch,created_at,id,label,lead_time,sample,updated_at"
TABLES = [
    (HEADER, ["9,1,1,2026-01-02T10:00:00Z,3,red,3.2,s7,2026-01-02T10:00:00Z"], {"s7": "red"}),
    ("id,label,lead_time,sample", ["3,red,3.2,s7"], {"s7": "red"}),
    ("sample,label,id,annotation_id", ["s7,red,3,1", "s8,,4,2"], {"s7": "red"}),
    (
        HEADER,
        ["9,1,1,,3,red,3.2,s7,2026-01-02T10:00:00Z", "8,1,1,,3,blue,3.2,s7,2026-01-02T09:00:00Z"],
        {"s7": "red"},
    ),
    (HEADER, ['9,1,1,,3,"{""choices"": [""red"", ""blue""]}",3.2,s7,', "9,1,1,,3,red,3.2,s8,"], {"s8": "red"}),
]


@pytest.mark.parametrize(("header", "rows", "found"), TABLES)
@pytest.mark.parametrize("separator", [",", "\t"])
def test_tables_of_label_studio(header, rows, found, separator, project, tmp_path) -> None:
    file = tmp_path / ("export.csv" if separator == "," else "export.tsv")
    with open(file, "w", newline="") as out:
        csv.writer(out, delimiter=separator).writerows(csv.reader([header, *rows]))
    assert tell(project, file) == 0
    assert labels(project) == found


def test_a_table_of_label_studio_through_a_spreadsheet(project: LabellingProject, tmp_path: Path) -> None:
    key = Identity(project.project).key("03")
    (tmp_path / "export.csv").write_text(f"annotation_id,id,sample,{KEY},label,lead_time\n1,3,3,{key},red,2.0\n")
    assert tell(project, tmp_path / "export.csv") == 0 and labels(project) == {"03": "red"}


@pytest.mark.parametrize("header", ["annotation_id,id,label", "id,label,lead_time,created_at"])
def test_a_table_of_tasks_that_are_not_ours(header: str, project, tmp_path, capsys) -> None:
    (tmp_path / "export.csv").write_text(f"{header}\n" + ",".join(["3"] * header.count(",")) + ",red\n")
    assert tell(project, tmp_path / "export.csv") == 2
    assert "its own number of a task" in capsys.readouterr().err and not labels(project)


def test_json_min(project: LabellingProject, tmp_path: Path) -> None:
    one = {"id": 3, "annotation_id": 1, "annotator": 1, "sample": "s7", "label": "red", "updated_at": "2026-01-02"}
    two = one | {"label": "blue", "updated_at": "2026-01-01"}
    assert told(project, tmp_path, one, two, one | {"sample": "s8", "label": {"choices": ["red", "blue"]}}) == 0
    assert labels(project) == {"s7": "red"}


LATER = [
    ("2026-10-25T02:10:00+01:00", "2026-10-25T02:30:00+02:00"),
    ("2026-10-25T02:30:00.500000Z", "2026-10-25T02:30:00Z"),
    ("2026-01-10T00:00:00Z", "2026-01-09T23:59:59+00:00"),
    ("2026-01-01T00:30:00Z", "2026-01-01T01:00:00+01:00"),
    ("1767225600", "1767225599000"),
    ("2026-01-02 10:00:00 UTC", "2026-01-02T09:59:59.999Z"),
]


@pytest.mark.parametrize(("later", "earlier"), LATER)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("where", ["one task", "two tasks", "two files"])
def test_the_later_answer_counts(later, earlier, turned, where, project, tmp_path) -> None:
    both = [annotation("blue", updated_at=later), annotation("red", updated_at=earlier)][:: -1 if turned else 1]
    assert moment(later) > moment(earlier)
    if where == "two files":
        for name, one in zip("ab", both, strict=True):
            (tmp_path / f"{name}.json").write_text(json.dumps([task("s1", one)]))
        assert tell(project, tmp_path / "a.json", str(tmp_path / "b.json")) == 0
    else:
        tasks = [task("s1", *both)] if where == "one task" else [task("s1", one) for one in both]
        assert told(project, tmp_path, *tasks, task("s2", annotation("green"))) == 0
    assert labels(project)["s1"] == "blue"


def test_a_time_that_decides_and_cannot_be_read(project: LabellingProject, tmp_path: Path, capsys) -> None:
    both = annotation("blue", updated_at="yesterday"), annotation("red", updated_at="2026-01-01")
    assert told(project, tmp_path, task("s1", *both)) == 2
    assert "'yesterday' is no time" in capsys.readouterr().err and not labels(project)


LEFT_OUT = [
    (task("s1", annotation(["red", "blue"])), "task 1 ('s1'): 2 choices ('red', 'blue')"),
    (task("s1", {"result": [{"from_name": "label", "value": {}}]}), "task 1 ('s1'): no annotation of choices"),
    (task("s1", {"completed_by": 1}), "task 1 ('s1')"),
    (task("s1", 3), "task 1 ('s1')"),
    ({"id": 1, "data": {}, "annotations": []}, "task 1: data.sample is missing"),
    ({"id": 1, "data": {"sample": 3}, "annotations": [annotation("red")]}, "task 1: data.sample is missing"),
    ({"id": 1, "data": {"sample": "s1"}}, "task 1: it has no list of annotations"),
]


@pytest.mark.parametrize(("wrong", "words"), LEFT_OUT)
def test_what_is_wrong_is_named_and_the_rest_is_taken(wrong, words, project, tmp_path, capsys) -> None:
    assert told(project, tmp_path, wrong, task("s2", annotation("green"))) == 0
    assert f"left out        {tmp_path / 'export.json'}, {words}" in capsys.readouterr().out
    assert labels(project) == {"s2": "green"}


def test_relations_say_nothing(project: LabellingProject, tmp_path: Path, capsys) -> None:
    relation = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    said = annotation("green")
    assert told(project, tmp_path, task("s2", said | {"result": [relation, *said["result"]]})) == 0
    assert labels(project) == {"s2": "green"} and "left out" not in capsys.readouterr().out


def test_tasks_that_wait_are_not_made_again() -> None:
    tasks = [task("a", batch=1), task("b", annotation("red"), batch=1), task("c", annotation("red"), batch=2)]
    assert there(tasks, 2) == {"a", "c"}


def test_an_export_is_one_file_in_the_journal(project: LabellingProject, tmp_path: Path) -> None:
    assert told(project, tmp_path, *(task(f"s{i}", annotation("red")) for i in range(30))) == 0
    assert project.project.state().undoable.files == [str(tmp_path / "export.json")]
    assert project.undo().startswith("30 answers from export.json (")
    files = [f"e.json, task {i}" for i in range(100)]
    old = Told(n=1, time="2026-01-01T00:00", files=files, new_classes=[], labels=[])
    assert summary_of(old) == "0 answers from e.json (2026-01-01 00:00)"
