"""Files of `init` and `tell` that go wrong in less usual ways: repetitions, several files, paths, sheer size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import run
from labelling.api import LabellingProject
from labelling.creating import create_project, samples_from_table
from labelling.project import Settings


@pytest.fixture
def project(tmp_path: Path) -> LabellingProject:
    (tmp_path / "samples.csv").write_text("id,text\n" + "".join(f"s{i},sample {i}\n" for i in range(30)))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(30, 4)))
    samples = samples_from_table(str(tmp_path / "samples.csv"), [f"x={tmp_path / 'x.npy'}"])
    create_project(tmp_path / "shop", samples, Settings("shop", classes=("red", "blue")))
    return LabellingProject(tmp_path / "shop")


def tell(project: LabellingProject, folder: Path, *texts: str, flags: tuple[str, ...] = ()) -> int:
    files = [folder / f"labels{i}.csv" for i in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    return run.main(["tell", str(project.project.path), *map(str, files), *flags])


def votes(project: LabellingProject) -> dict[str, dict[str, str | None]]:
    return project.project.state().votes


def test_a_repeated_row_is_named(project: LabellingProject, tmp_path: Path, capsys) -> None:
    assert tell(project, tmp_path, "id,label\ns1,red\ns2,blue\ns1,red\n") == 2
    assert "labels0.csv, row 4: annotator calls 's1' 'red' in row 2 already" in capsys.readouterr().err
    assert not votes(project)


def test_two_files_may_say_the_same(project: LabellingProject, tmp_path: Path) -> None:
    assert tell(project, tmp_path, "id,label\ns1,red\n", "id,label\ns1,red\ns2,skip\n") == 0
    assert votes(project) == {"s1": {"annotator": "red"}, "s2": {"annotator": None}}


def test_two_files_may_not_contradict_each_other(project: LabellingProject, tmp_path: Path, capsys) -> None:
    texts = ("id,label\ns1,red\ns2,red\n", "id,label\ns3,red\ns1,blue\n")
    assert tell(project, tmp_path, *texts) == 2
    said = capsys.readouterr().err
    assert "labels1.csv, row 3" in said and "labels0.csv, row 2" in said and not votes(project)
    assert tell(project, tmp_path, *texts, flags=("--annotator", "file")) == 0
    assert votes(project)["s1"] == {"labels0": "red", "labels1": "blue"}


def test_a_bad_last_file_spoils_all(project: LabellingProject, tmp_path: Path, capsys) -> None:
    for last, words in (("id,label\n", "labels1.csv holds no answer"), ("id,label\ns99,red\n", "labels1.csv, row 2")):
        assert tell(project, tmp_path, "id,label\ns1,red\n", last) == 2
        assert words in capsys.readouterr().err and not votes(project)


def test_a_hopeless_file_is_not_read_to_its_end(project: LabellingProject, tmp_path: Path, capsys) -> None:
    """The broken quote at the end would be the error otherwise."""
    assert tell(project, tmp_path, "id,label\nnobody,red\n" + 'x,"\n') == 2
    assert "row 2: no sample has the id 'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["picture", "audio"])
@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "C:\\secret.png", "a/../../secret.png"])
def test_paths_that_leave_the_folder(kind: str, path: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "samples.csv").write_text(f"id,{kind}\na,mine/a.png\nb,{path}\n")
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    arguments = ["--samples", str(tmp_path / "samples.csv"), "--features", f"x={tmp_path / 'x.npy'}"]
    assert run.main(["init", str(tmp_path / "shop"), *arguments]) == 2
    said = capsys.readouterr().err
    assert f"samples.csv, row 3: {kind} {path!r}" in said and not (tmp_path / "shop").exists()


def test_features_of_another_length(tmp_path: Path, capsys) -> None:
    (tmp_path / "samples.csv").write_text("id\na\nb\nc\n")
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    arguments = ["--samples", str(tmp_path / "samples.csv"), "--features", f"x={tmp_path / 'x.npy'}"]
    assert run.main(["init", str(tmp_path / "shop"), *arguments]) == 2
    said = capsys.readouterr().err
    assert "modality 'x' has shape [2, 3]" in said and "samples.csv has 3 samples" in said
    assert not (tmp_path / "shop").exists()
