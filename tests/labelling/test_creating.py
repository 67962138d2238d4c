"""What `init` takes, and what it says of it: pictures, ids, rows, features; and what moves with a project."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import run
from envs.errors import DataError
from labelling.api import LabellingProject
from labelling.creating import create_project, samples_from_pool
from labelling.events import Asked
from labelling.identity import KEY
from labelling.label_studio.tasks import make_tasks
from labelling.project import Settings
from policies.policy_file import pretrained_policy
from tests.support.labelling import init

PICTURES: list[tuple[str, Callable[[Path], str]]] = [
    ("https://example.org/img/0.jpg", lambda folder: "https://example.org/img/0.jpg"),
    ("HTTP://example.org/a b.jpg", lambda folder: "HTTP://example.org/a b.jpg"),
    ("s3://bucket/0.jpg", lambda folder: "s3://bucket/0.jpg"),
    ("gs://bucket/0.jpg", lambda folder: "gs://bucket/0.jpg"),
    ("img\\1.jpg", lambda folder: str(folder / "img" / "1.jpg")),
    (".\\img\\1.jpg", lambda folder: str(folder / "img" / "1.jpg")),
    ("img/1.jpg", lambda folder: str(folder / "img" / "1.jpg")),
    ("od\\d.jpg", lambda folder: str(folder / "od\\d.jpg")),
]


@pytest.mark.parametrize(("value", "path"), PICTURES)
def test_a_picture_is_where_the_table_says(value: str, path: Callable[[Path], str], tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "1.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "od\\d.jpg").write_bytes(b"\xff\xd8\xff")
    project = init(tmp_path, ["a", "b"], picture=[value, ""])
    assert project.project.show(0) == {"picture": path(tmp_path)}
    rows = [{"id": "a", "predicted": "", "confidence": "", "why": ""}]
    event = Asked(n=1, time="2026-01-01T00:00:00+00:00", batch=1, rows=rows)
    (made,) = make_tasks(project.project, event)
    assert made["data"]["picture"].startswith("data:image/jpeg" if "://" not in value else value)


@pytest.mark.parametrize("value", ["file:///etc/passwd", "ftp://x/y.png", "s3://bucket/../other/a.png", "C:\\a.png"])
def test_other_addresses_are_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"samples\.csv, row 2: picture .* or an address \(http, https, s3\)"):
        init(tmp_path, ["a", "b"], picture=[value, ""])


def pictured(folder: Path) -> LabellingProject:
    (folder / "img").mkdir(parents=True)
    for i in range(8):
        (folder / "img" / f"{i}.jpg").write_bytes(b"\xff\xd8\xff")
    return init(folder, [f"s{i}" for i in range(8)], picture=[f"img/{i}.jpg" for i in range(8)])


def test_one_missing_picture(tmp_path: Path, capsys) -> None:
    project = pictured(tmp_path)
    asked = [row["id"] for row in project.ask(4)]
    gone = tmp_path / "img" / f"{asked[1][1:]}.jpg"
    gone.unlink()
    assert run.main(["ask", str(project.project.path), "--label-studio"]) == 0
    assert f"left out        '{asked[1]}': Cannot read {gone}" in capsys.readouterr().out
    tasks = json.loads(project.project.batch_file(1).with_suffix(".json").read_text())
    assert [task["data"]["sample"] for task in tasks] == [asked[0], *asked[2:]]
    shutil.rmtree(tmp_path / "img")
    assert run.main(["ask", str(project.project.path), "--label-studio"]) == 2


def test_pictures_that_moved_with_the_project(tmp_path: Path) -> None:
    pictured(tmp_path / "old")
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = LabellingProject(tmp_path / "new" / "shop")
    assert all(
        row["picture"].startswith(str(tmp_path / "new")) and os.path.isfile(row["picture"]) for row in moved.ask(8)
    )


def test_a_policy_is_copied(tmp_path: Path) -> None:
    shutil.copytree(pretrained_policy(), tmp_path / "mine")
    (tmp_path / "s.csv").write_text(
        "id,label\n" + "".join(f"s{i},{'red' if i % 2 else 'blue'}\n" for i in range(8)) + "z,\n"
    )
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(9, 3)))
    flags = ["--samples", str(tmp_path / "s.csv"), "--features", f"x={tmp_path / 'x.npy'}", "--validation", "0"]
    assert run.main(["init", str(tmp_path / "shop"), *flags, "--policy", str(tmp_path / "mine")]) == 0
    shutil.rmtree(tmp_path / "mine")
    shutil.move(tmp_path / "shop", tmp_path / "elsewhere")
    assert [row["id"] for row in LabellingProject(tmp_path / "elsewhere").ask(2)] == ["z"]


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ("{}/emb.npz", "modality 'filenames' holds <U3, no numbers; name the array"),
        ("image={}/emb.npz", None),
        ("image={}/emb.npz:embeddings", None),
        ("image={}/emb.npz:nothing", "emb.npz holds embeddings, filenames; name one array"),
        ("image={}/pictures.npy", "has shape [40, 4, 4, 3]; it needs two dimensions"),
        ("image={}/flat.npy", "has shape [40]; it needs two dimensions"),
    ],
)
def test_features_of_other_shapes(features: str, words: str | None, tmp_path: Path, capsys) -> None:
    numbers = np.random.default_rng(0).normal(size=(40, 4))
    np.savez(tmp_path / "emb.npz", embeddings=numbers, filenames=np.array([f"s{i}" for i in range(40)]))
    np.save(tmp_path / "pictures.npy", np.zeros((40, 4, 4, 3), np.uint8))
    np.save(tmp_path / "flat.npy", np.zeros(40))
    (tmp_path / "s.csv").write_text("id\n" + "".join(f"s{i}\n" for i in range(40)))
    flags = ["--samples", str(tmp_path / "s.csv"), "--features", features.format(tmp_path)]
    assert run.main(["init", str(tmp_path / "shop"), *flags]) == (2 if words else 0)
    assert (words or "") in capsys.readouterr().err


def test_classes_are_names_and_not_a_file(tmp_path: Path, capsys) -> None:
    (tmp_path / "classes.txt").write_text("red\nblue\n")
    flags = ["--samples", "emoji", "--classes", str(tmp_path / "classes.txt")]
    assert run.main(["init", str(tmp_path / "shop"), *flags]) == 2
    assert "give the names themselves" in capsys.readouterr().err


def test_a_folder_whose_name_is_no_utf_8(tmp_path: Path, capsys) -> None:
    name = f"{tmp_path}/caf\udce9"  # as Python reads a name in Latin-1
    with pytest.raises(SystemExit):
        run.main(["init", name, "--samples", "emoji"])
    assert "is no UTF-8" in capsys.readouterr().err
    with pytest.raises(DataError, match="is no UTF-8"):
        create_project(name, samples_from_pool("emoji", False), Settings("p"))
    samples = replace(samples_from_pool("emoji", False), media={"text": ["\ud83d"]})
    with pytest.raises(DataError, match="holds half a character"):
        create_project(tmp_path / "p", samples, Settings("p"))
    assert os.listdir(tmp_path) == []


def test_a_pile_without_labels(tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "x.npz", x_a=np.ones((9, 2)))
    assert run.main(["init", str(tmp_path / "shop"), "--samples", str(tmp_path / "x.npz")]) == 0
    assert "labels          0 so far" in capsys.readouterr().out


def test_a_file_is_named_once(tmp_path: Path, capsys) -> None:
    (tmp_path / "s.csv").write_text("id,split\na,val\n")
    np.save(tmp_path / "x.npy", np.ones((1, 3)))
    flags = ["--samples", str(tmp_path / "s.csv"), "--features", f"x={tmp_path / 'x.npy'}"]
    assert run.main(["init", str(tmp_path / "shop"), *flags]) == 2
    assert capsys.readouterr().err.count("s.csv") == 1


def test_init_names_the_ids(tmp_path: Path, capsys) -> None:
    (tmp_path / "s.csv").write_text("id,picture\n03,a.png\ns1,https://example.org/b.png\n23E9,\n")
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    flags = ["--samples", str(tmp_path / "s.csv"), "--features", f"x={tmp_path / 'x.npy'}"]
    assert run.main(["init", str(tmp_path / "my shop"), *flags]) == 0
    said = capsys.readouterr().out
    assert "rewrites 2 of them ('03', '23E9')" in said and KEY in said
    assert f"1 of 3 files of picture, as {tmp_path / 'a.png'}" in said and f"ask '{tmp_path / 'my shop'}'" in said


def test_short_rows_of_init(tmp_path: Path, capsys) -> None:
    (tmp_path / "s.csv").write_text("id,text,label\na,x,red\nb,y\nc,z,\n")
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    flags = ["--samples", str(tmp_path / "s.csv"), "--features", f"x={tmp_path / 'x.npy'}"]
    assert run.main(["init", str(tmp_path / "shop"), *flags]) == 0
    assert "1 lack their last cells, the first is row 3" in capsys.readouterr().out
