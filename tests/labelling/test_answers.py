"""An answer is recorded for the sample and the person that it is about, or not at all."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envs.errors import DataError
from labelling.api import LabellingProject
from labelling.identity import KEY, Identity
from tests.support.labelling import IDS, annotation, init, labels, task, tell, told, write


@pytest.fixture
def project(tmp_path: Path) -> LabellingProject:
    return init(tmp_path, IDS, text=[f"text {i}" for i in range(len(IDS))])


@pytest.fixture
def batch(project: LabellingProject) -> list[dict[str, str]]:
    """The rows of a batch of all samples, as its file has them."""
    project.ask(len(IDS))
    with open(project.project.batch_file(1), newline="", encoding="utf-8-sig") as text:
        return list(csv.DictReader(text))


def test_keys_are_words_of_their_own(project: LabellingProject, batch: list[dict[str, str]], tmp_path: Path) -> None:
    """Letters alone, and none that make a word; other data have others."""
    keys = {row[KEY] for row in batch}
    assert len(keys) == len(IDS) and all(key.isalpha() and not set(key) & set("aeiouy") for key in keys)
    assert list(batch[0])[-1] == KEY  # no empty cell at the end, which spreadsheets cut off
    (tmp_path / "other").mkdir()
    other = init(tmp_path / "other", IDS[:-1])  # other features
    assert not keys & {Identity(other.project).key(sample) for sample in IDS}


# (id, what a spreadsheet makes of it); the key says which sample it is.
CHANGED = [
    ("03", "3"),
    ("04", "4"),
    ("23E9", "2.30E+10"),
    ("1000000000000003", "1000000000000000"),
    ("1000000000000003", "1E+15"),
    ("1-2", "01.02.2026"),
    ("1-2", "46024"),
    ("true", "WAHR"),
    ("=1+1", "2"),
    ("größe_1", "grÃ¶ÃŸe_1"),
    ("s1", ""),
]


@pytest.mark.parametrize(("sample", "written"), CHANGED)
def test_the_key_counts_and_not_the_id(sample, written, project, batch, tmp_path) -> None:
    (row,) = (row for row in batch if row["id"].lstrip("'") == sample)
    assert tell(project, write(tmp_path / "b.csv", [row | {"id": written, "label": "red", KEY: row[KEY].upper()}])) == 0
    assert labels(project) == {sample: "red"}


def test_the_batch_as_it_is(project: LabellingProject, batch: list[dict[str, str]], tmp_path: Path) -> None:
    assert next(row for row in batch if row["text"] == "text 8")["id"] == "'=1+1"  # a spreadsheet would run it
    assert tell(project, write(tmp_path / "b.csv", [row | {"label": "blue"} for row in batch])) == 0
    assert labels(project) == dict.fromkeys(labels(project), "blue") and set(labels(project)) == set(IDS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "s2"}, "id 's2', but sample_key is that of 's1'; were columns sorted"),
        ({KEY: "bcdfghjklmnp"}, "belongs to no sample of this project"),
        ({"id": "", KEY: ""}, "label 'red' has no id"),
    ],
)
def test_keys_that_disagree(change, words, project, batch, tmp_path, capsys) -> None:
    (row,) = (row for row in batch if row["id"] == "s1")
    assert tell(project, write(tmp_path / "b.csv", [row | {"label": "red"} | change])) == 2
    assert words in capsys.readouterr().err and not labels(project)


@pytest.mark.parametrize(
    ("written", "may"),
    [
        ("3", "'3' or '03'"),
        ("4", "'04'"),
        ("2.30E+10", "'23E9'"),
        ("1000000000000000", "'1000000000000000' or '1000000000000003'"),
        ("1E+15", "'1000000000000000' or '1000000000000003'"),
        ("01.02.2026", "'1-2'"),
        ("TRUE", "'true'"),
    ],
)
def test_without_a_key_a_changed_id_is_refused(written: str, may: str, project, tmp_path, capsys) -> None:
    (tmp_path / "mine.csv").write_text(f"id,label\ns1,red\n{written},red\n")
    assert tell(project, tmp_path / "mine.csv") == 2
    said = capsys.readouterr().err
    assert f"mine.csv, row 3: id '{written}' may mean {may}" in said and KEY in said and not labels(project)


@pytest.mark.parametrize("sample", ["03", "23E9", "1000000000000003", "1-2", "true", "'=1+1", "gro\u0308\u00dfe_1"])
def test_without_a_key_other_ids_are_taken(sample: str, project, tmp_path) -> None:
    (tmp_path / "mine.csv").write_text(f"id,label\n{sample},red\n", "utf-8")
    assert tell(project, tmp_path / "mine.csv") == 0
    assert list(labels(project)) == [sample.lstrip("'").replace("o\u0308", "ö")]


def test_parquet_and_python_have_been_through_no_spreadsheet(project: LabellingProject, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["3", "03"], "label": ["red", "blue"]}), tmp_path / "mine.parquet")
    assert tell(project, tmp_path / "mine.parquet") == 0
    project.tell({"3": "green"})
    assert labels(project) == {"3": "green", "03": "blue"}


SHORT = [
    ("id,text,label\ns1,x,red\ns2,y\n", {"s1": "red"}),
    ("id,text,label,note\ns1,x,red\ns2,y,blue,n\ns3\n", {"s1": "red", "s2": "blue"}),
    ("id,label\ns1,red,\ns2,blue,,,\n", {"s1": "red", "s2": "blue"}),
    ("id;label;annotator\ns1;red\n", {"s1": "red"}),
    ("sep=;\nid;label\ns1;red\n", {"s1": "red"}),
]


@pytest.mark.parametrize(("text", "found"), SHORT)
def test_cells_that_a_spreadsheet_leaves_out(text: str, found, project, tmp_path) -> None:
    (tmp_path / "mine.csv").write_text(text)
    assert tell(project, tmp_path / "mine.csv") == 0 and labels(project) == found


BROKEN = [
    ("id,text,label\ns1,a\nsecond line,red\n", "row 3: it has too few values"),
    ("id,label\ns1,red,blue\n", "row 2: 3 values, but the header has 2 columns"),
    (f"id,label,{KEY}\ns1,red\n", "row 2: it has too few values"),
    ('id,label\n"s\\"1",red\n', "a quote is written twice"),
    ("sep=;\nid;label\nnobody;red\n", "row 3: no sample has the id 'nobody'"),
]


@pytest.mark.parametrize(("text", "words"), BROKEN)
def test_other_rows_are_named(text: str, words: str, project, tmp_path, capsys) -> None:
    (tmp_path / "mine.csv").write_text(text)
    assert tell(project, tmp_path / "mine.csv") == 2
    assert words in capsys.readouterr().err and not labels(project)


def test_two_files_of_one_name_are_not_one_person(project: LabellingProject, tmp_path: Path, capsys) -> None:
    files = [tmp_path / name / "batch-0001.csv" for name in ("first", "second")]
    for file, label in zip(files, ("red", "blue"), strict=True):
        file.parent.mkdir()
        file.write_text(f"id,label\ns1,{label}\n")
    flags = "--annotator", "file"
    assert tell(project, files[0], str(files[1]), *flags) == 2 and not labels(project)
    assert tell(project, files[0], *flags) == 0 and tell(project, files[0], *flags) == 0
    assert tell(project, files[1], *flags) == 2
    assert f"the annotator of {files[0]} already" in capsys.readouterr().err
    assert tell(project, files[1], "--annotator", "batch-0001") == 0 and labels(project) == {"s1": "blue"}


@pytest.mark.parametrize("nobody", ["", "nan", "NaN", "None", "<NA>"])
def test_nobody_is_nobody(nobody: str, project: LabellingProject, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(f"id,label,annotator\ns1,red,{nobody}\n")
    assert tell(project, tmp_path / "mine.csv") == 0
    assert project.project.state().votes == {"s1": {"annotator": "red"}}


def test_a_person_in_two_cases(project: LabellingProject, tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.csv").write_text("id,label,annotator\ns1,red,Anna\n")
    assert tell(project, tmp_path / "mine.csv") == 0
    assert tell(project, tmp_path / "mine.csv", "--annotator", "x") == 0
    (tmp_path / "mine.csv").write_text("id,label,annotator\ns1,red,anna\n")
    assert tell(project, tmp_path / "mine.csv") == 2
    assert "'anna' differs from 'Anna' by case only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("a\nb", "a name needs one line"),
        ("a\u202eb", "characters that are seen"),
        ("\u200b", "characters that are seen"),
        ("\ud83d", "a name needs one line"),
        ("x" * 501, "has 501 characters"),
        (5, "is no text"),
    ],
)
def test_an_annotator_is_a_name(who: object, words: str, project: LabellingProject) -> None:
    with pytest.raises(DataError, match=words):
        project.tell({"s1": "red"}, annotator=who)
    assert labels(project) == {}
    for known in ("Jos\u00e9", "\U0001f469\u200d\U0001f4bb", "x" * 500):
        project.tell({"s1": "red"}, annotator=known)


def test_a_number_and_a_mail_address_are_one_person(project: LabellingProject, tmp_path: Path, capsys) -> None:
    assert told(project, tmp_path, task("s1", annotation("red", completed_by=4))) == 0
    user = {"id": 4, "email": "anna@example.org"}
    assert told(project, tmp_path, task("s1", annotation("blue", completed_by=user))) == 0
    assert project.project.state().votes == {"s1": {"4": "blue"}}
    (tmp_path / "mine.csv").write_text("id,label\ns1,green\n")
    assert tell(project, tmp_path / "mine.csv") == 0
    assert "'annotator' beside '4'; if one of these is the same person" in capsys.readouterr().out
