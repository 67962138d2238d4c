"""A project's folder over the years: newer and older releases, damage, moves, full and read-only disks, two writers."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from safetensors import SafetensorError

import labelling.creating
import labelling.project
import run
from envs.errors import DataError
from labelling.api import LabellingProject
from labelling.creating import create_project, samples_from_table
from labelling.journal import LENGTH, Journal
from labelling.project import Project, Settings


@pytest.fixture
def project(tmp_path: Path) -> LabellingProject:
    """Thirty samples, two of which have labels from before."""
    labels = ["red", "blue"] + [""] * 28
    table = "id,text,label\n" + "".join(f"s{i},sample {i},{label}\n" for i, label in enumerate(labels))
    (tmp_path / "samples.csv").write_text(table)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 4)))
    samples = samples_from_table(str(tmp_path / "samples.csv"), [f"x={tmp_path / 'x.npy'}"])
    create_project(tmp_path / "shop", samples, Settings("shop"))
    return LabellingProject(tmp_path / "shop")


def info_of(project: LabellingProject) -> dict:
    return json.loads((project.project.path / "project.json").read_text())


def test_a_newer_schema_is_refused(project: LabellingProject) -> None:
    file = project.project.path / "project.json"
    file.write_text(json.dumps(info_of(project) | {"schema_version": 99}))
    with pytest.raises(DataError, match="schema version 99"):
        LabellingProject(project.project.path)


def test_an_older_schema_is_migrated_step_by_step(project: LabellingProject, monkeypatch) -> None:
    """Reading changes nothing on the disk; the first command that writes raises the version there."""
    now = labelling.project.SCHEMA_VERSION
    steps = {
        now: lambda info: info | {"steps": ["first"]},
        now + 1: lambda info: info | {"steps": [*info["steps"], "second"]},
    }
    monkeypatch.setattr(labelling.project, "SCHEMA_VERSION", now + 2)
    monkeypatch.setattr(labelling.project, "MIGRATIONS", steps)
    old = info_of(project)
    newer = LabellingProject(project.project.path)
    assert newer.status().training_labels + newer.status().measuring_labels == 2 and info_of(project) == old
    newer.tell({"s2": "red"})
    assert info_of(project) == old | {"schema_version": now + 2, "steps": ["first", "second"]}
    assert len(LabellingProject(project.project.path).project.state().votes) == 3
    monkeypatch.undo()
    with pytest.raises(DataError, match=f"schema version {now + 2}; this release reads up to version {now}"):
        LabellingProject(project.project.path)


CHECKSUM = re.compile(r',"crc32":"[0-9a-f]{8}"(?=\}$)', re.MULTILINE)


def as_first_release(folder: Path) -> None:
    """Make of a project what the first releases wrote: schema version 1, no checksums, no length."""
    info = json.loads((folder / "project.json").read_text())
    (folder / "project.json").write_text(json.dumps(info | {"schema_version": 1}))
    journal = folder / "journal.jsonl"
    journal.write_text(CHECKSUM.sub("", journal.read_text()))
    (folder / LENGTH).unlink()


def test_a_project_of_the_first_releases(project: LabellingProject) -> None:
    """It is read as it is; its first new event has a checksum, and from then on older releases refuse it."""
    folder = project.project.path
    project.tell({row["id"]: "red" for row in project.ask(3)})
    votes = project.project.state().votes
    as_first_release(folder)
    old, journal = info_of(project), project.project.journal.path.read_text()
    again = LabellingProject(folder)
    assert again.project.state().votes == votes and again.status() and info_of(project) == old
    again.tell({"s20": "blue"})
    assert info_of(project) == old | {"schema_version": 2}
    new = again.project.journal.path.read_text()
    assert new.startswith(journal) and len(CHECKSUM.findall(new)) == 2  # told and trained
    assert LabellingProject(folder).project.state().votes == votes | {"s20": {"annotator": "blue"}}


@pytest.mark.parametrize(
    "line, words",
    [
        ('{"n":3,"event":"told"}', "(time: Field required)"),
        ('{"n":3,"event":"undo"}', "Field required"),
        ('{"n":3,"event":"asked"}', "Field required"),
        ('{"n":3,"event":"uold","time":""}', "the event 'uold' is unknown to this release"),
        ('{"n":3,"event":"undo","time":"","undoes":[1]}', "should be a valid integer"),
        ('{"n":3,"event":"undo","time":"","undoes":true}', "should be a valid integer"),
        ('{"n":3,"event":"undo","time":"","undoes":7}', "it takes event 7 back, which is no batch or answers"),
        ('{"n":3,"event":"undo","time":"","undoes":2,"why":"x"}', "the field 'why' is unknown to this release"),
        ('{"n":3,"event":"trained","time":"","after":2,"progress":{}}', "it names event 2, which told nothing"),
        ('{"n":3,"event":"asked","time":"","batch":9,"rows":[]}', "batch 9 where batch 2 comes next"),
        (
            '{"n":3,"event":"told","time":"","files":[],"new_classes":[],"labels":[["s3","green","a",0,1]]}',
            "sample 's3' has the label 'green', which is no class",
        ),
        ("[" * 100_000, "recursion limit"),
        ("", "no event"),
        ("\udcff", "no event"),
    ],
)
def test_lines_that_are_no_event(line: str, words: str, project: LabellingProject, tmp_path: Path, capsys) -> None:
    """Every command names file and line, says what to do, and changes nothing."""
    folder = project.project.path
    project.ask(2)
    as_first_release(folder)
    journal = folder / "journal.jsonl"
    with open(journal, "ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    before = journal.read_bytes()
    (tmp_path / "a.csv").write_text("id,label\ns4,red\n")
    for given in (["ask"], ["tell", str(tmp_path / "a.csv")], ["status"], ["undo"], ["export"]):
        assert run.main([given[0], str(folder), *given[1:]]) == 2
        said = capsys.readouterr().err
        assert f"{journal}, line 3: " in said and words in said and "Restore the file from a copy" in said
        assert len(said) < 600
    assert journal.read_bytes() == before


@pytest.mark.parametrize(
    "command, line",
    [
        ("status", '{"n":3,"event":"told","time":"","files":[],"new_classes":[],"labels":[["who","red","a",0,1]]}'),
        (
            "ask",
            '{"n":3,"event":"asked","time":"","batch":2,"rows":[{"id":"who","predicted":"","confidence":0.5,"why":""}]}',
        ),
    ],
)
def test_samples_that_the_pool_does_not_have(command: str, line: str, project: LabellingProject, capsys) -> None:
    """As in the journal of another project."""
    folder = project.project.path
    project.ask(2)
    as_first_release(folder)
    with open(folder / "journal.jsonl", "a") as file:
        file.write(line + "\n")
    assert run.main([command, str(folder)]) == 2
    assert "names the sample 'who', which is not in" in capsys.readouterr().err


@pytest.mark.parametrize("progress", [{"unknown": 1}, {"training_labels": "many"}, {}])
def test_figures_that_are_none(progress: dict, project: LabellingProject, tmp_path: Path, capsys) -> None:
    told = project.project.journal.append("told", files=[], new_classes=[], labels=[["s2", "red", "ann", 0, 0]])
    project.project.journal.append("trained", after=told.n, progress=progress)
    assert run.main(["status", str(project.project.path)]) == 2
    assert "Event 3 of the journal h" in capsys.readouterr().err
    assert run.main(["export", str(project.project.path), "--out", str(tmp_path / "out")]) == 0


def test_texts_of_the_first_projects(project: LabellingProject) -> None:
    """They lay in the pool."""
    old = project.project
    table = old.path / "pool" / "samples.parquet"
    pq.write_table(pq.read_table(table).append_column("text", pa.array([f"old {i}" for i in range(30)])), table)
    media = old.path / "media.parquet"
    pq.write_table(pq.read_table(media).select(["id"]), media)
    assert Project(old.path).show(3) == {"text": "old 3"}


def test_undo_leaves_what_init_took_along(project: LabellingProject) -> None:
    batch = project.ask(3)
    project.tell({row["id"]: "red" for row in batch})
    assert "3 answers" in project.undo() and "batch 1" in project.undo()
    with pytest.raises(Exception, match="nothing to undo"):
        project.undo()
    assert set(project.project.state().votes) == {"s0", "s1"}


def test_a_project_can_be_moved(project: LabellingProject, tmp_path: Path) -> None:
    batch = project.ask(4)
    shutil.move(project.project.path, tmp_path / "elsewhere")
    moved = LabellingProject(tmp_path / "elsewhere")
    assert moved.ask(9) == batch
    moved.tell({row["id"]: "red" for row in batch})
    assert len(moved.project.state().votes) == 6 and moved.ask(3)


@pytest.mark.parametrize("name", ["project.json", "media.parquet", "pool/pool.json", "pool/samples.parquet"])
@pytest.mark.parametrize("damage", [b"", b"[1]", None], ids=["empty", "other", "absent"])
def test_damage_is_named(name: str, damage: bytes | None, project: LabellingProject, capsys) -> None:
    file = project.project.path / name
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    assert run.main(["ask", str(project.project.path)]) == 2
    said = capsys.readouterr().err
    assert str(file.parent) in said and "None" not in said


def test_a_lost_journal_is_not_an_empty_one(project: LabellingProject) -> None:
    project.project.journal.path.unlink()
    with pytest.raises(DataError, match=r"journal\.jsonl is missing"):
        LabellingProject(project.project.path).ask(3)


def test_what_was_noted_of_the_features_only_saves_time(project: LabellingProject, monkeypatch) -> None:
    assert project.status()
    (project.project.path / ".features_seen.json").write_text("[1, 2]")

    def read_only(*_) -> None:
        raise DataError("Read-only file system")

    monkeypatch.setattr(labelling.project, "write_text", read_only)
    assert LabellingProject(project.project.path).status()


def test_labels_can_be_taken_along_when_features_are_lost(project: LabellingProject, tmp_path: Path, capsys) -> None:
    next((project.project.path / "pool" / "features").glob("*.npy")).unlink()
    assert run.main(["export", str(project.project.path), "--out", str(tmp_path / "out")]) == 0
    assert "features are not those of init" in capsys.readouterr().out
    assert (tmp_path / "out" / "labels.csv").read_text().count("\n") == 3
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_disk_that_is_full_after_the_labels(project: LabellingProject, monkeypatch) -> None:
    """They are recorded, and the message says so."""
    append = Journal.append

    def full(journal: Journal, kind: str, **content):
        if kind == "trained":
            raise DataError(f"Cannot write {journal.path}: {os.strerror(errno.ENOSPC)}; it is as it was.")
        return append(journal, kind, **content)

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(DataError, match=r"The 1 answers are recorded.*No space left"):
        project.tell({"s2": "red"})
    assert "s2" in LabellingProject(project.project.path).project.state().votes


def test_an_export_that_does_not_fit(project: LabellingProject, tmp_path: Path, monkeypatch) -> None:
    def full(*_) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("labelling.model_file.save_file", full)
    project.tell({f"s{i}": "red" if i % 2 else "blue" for i in range(2, 12)})
    with pytest.raises(DataError, match=r"Cannot write .*No space left"):
        project.export(tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".unfinished*"))


def test_two_inits_of_one_folder(tmp_path: Path, monkeypatch) -> None:
    """The second one to end says so, and destroys nothing."""
    (tmp_path / "samples.csv").write_text("id,label\n" + "".join(f"s{i},\n" for i in range(30)))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 4)))
    samples = samples_from_table(str(tmp_path / "samples.csv"), [f"x={tmp_path / 'x.npy'}"])
    save_pool = labelling.creating.save_pool

    def meanwhile(*given) -> None:
        save_pool(*given)
        monkeypatch.undo()
        create_project(tmp_path / "shop", samples, Settings("first"))

    monkeypatch.setattr(labelling.creating, "save_pool", meanwhile)
    with pytest.raises(DataError, match="shop exists; choose another folder"):
        create_project(tmp_path / "shop", samples, Settings("second"))
    assert Project(tmp_path / "shop").settings.name == "first"
    assert not list(tmp_path.glob(".unfinished*"))


def begin(arguments: list[list[str]], said: Path, gate: int) -> int:
    """A process that runs commands, the later ones if the first succeeds, once it gets a byte from `gate`; its id."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            with open(said, "w") as file, redirect_stdout(file), redirect_stderr(file):
                os.read(gate, 1)
                status = run.main(arguments[0])
                if status == 0:
                    status = max(run.main(more) for more in arguments[1:])
        finally:
            os._exit(status)
    return child


def test_inits_of_one_folder_in_several_processes(tmp_path: Path) -> None:
    """One makes it, the others say that it exists, and what was told to the one is there at the end."""
    (tmp_path / "samples.csv").write_text("id,label\n" + "".join(f"s{i},\n" for i in range(30)))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 4)))
    (tmp_path / "a.csv").write_text("id,label\ns3,red\n")
    for turn in range(5):
        shop = tmp_path / f"shop{turn}"
        init = ["init", str(shop), "--samples", str(tmp_path / "samples.csv"), "--features", f"x={tmp_path / 'x.npy'}"]
        reader, writer = os.pipe()
        children = {}
        for budget in (10, 20, 30):
            commands = [[*init, "--budget", str(budget)], ["tell", str(shop), str(tmp_path / "a.csv")]]
            children[budget] = begin(commands, tmp_path / f"said{budget}", reader)
        os.write(writer, b"...")
        status = {budget: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for budget, child in children.items()}
        os.close(reader)
        os.close(writer)
        assert sorted(status.values()) == [0, 2, 2]
        made = next(budget for budget in status if status[budget] == 0)
        for budget in set(status) - {made}:
            assert (tmp_path / f"said{budget}").read_text() == f"error: {shop} exists; choose another folder.\n"
        assert info_of(LabellingProject(shop))["settings"]["budget"] == made
        assert LabellingProject(shop).project.state().votes == {"s3": {"annotator": "red"}}
    assert not list(tmp_path.glob(".unfinished*"))


def test_an_export_takes_the_place_of_an_export_only(project: LabellingProject, tmp_path: Path) -> None:
    project.export(tmp_path / "out")
    project.tell({"s9": "red"})
    project.export(tmp_path / "out")
    assert "s9" in (tmp_path / "out" / "labels.csv").read_text()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(DataError, match="thesis exists and is no earlier export; choose another --out"):
        project.export(tmp_path / "thesis")
    assert os.listdir(tmp_path / "thesis") == ["chapter1.txt"]


def test_two_writers(project: LabellingProject, monkeypatch) -> None:
    monkeypatch.setattr(labelling.project, "LOCK_SECONDS", 0.1)
    with FileLock(project.project.path / ".lock"), pytest.raises(DataError, match="another command is writing"):
        project.ask(3)
    assert project.ask(3)
