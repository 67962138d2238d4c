"""Files of `init` and `tell` that go wrong in less usual ways: repetitions, several files, paths, sheer size."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import run
from envs.errors import ConfigError, DataError
from envs.pools import Pool
from labelling.api import LabellingProject
from labelling.creating import Samples, create_project, samples_from_table
from labelling.project import Settings
from labelling.state import SKIP


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


def test_a_very_long_text(tmp_path: Path) -> None:
    """One among many costs its own length, and comes back whole."""
    rows = 2_000
    long = "so it goes on, " * 20_000
    texts = [long, *(f"text {i}" for i in range(1, rows))]
    with open(tmp_path / "samples.csv", "w", newline="") as out:
        csv.writer(out).writerows([("id", "text"), *((f"s{i}", text) for i, text in enumerate(texts))])
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(rows, 3)))
    tracemalloc.start()
    samples = samples_from_table(str(tmp_path / "samples.csv"), [f"x={tmp_path / 'x.npy'}"])
    shop = create_project(tmp_path / "shop", samples, Settings("shop"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # an array of such texts takes 2.4 GB
    assert shop.show(0) == {"text": long.strip()} and shop.show(1) == {"text": "text 1"}


def init(folder: Path, table: str, *features: str) -> int:
    (folder / "samples.csv").write_text(table)
    flags = [part for feature in features for part in ("--features", feature)]
    return run.main(["init", str(folder / "shop"), "--samples", str(folder / "samples.csv"), *flags])


def test_empty_cells_where_a_modality_is_absent(tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    given = "columns:n_*", f"x={tmp_path / 'x.npy'}"
    table = "id,n_1,n_2,present_n\na,1,2,1\nb,,,{0}\nc,5,6,1\n"
    assert init(tmp_path, table.replace("{0}", "1"), f"n={given[0]}", given[1]) == 2
    assert "samples.csv: Modality 'n', row 1 (id 'b'), column 0: value nan" in capsys.readouterr().err
    assert init(tmp_path, "id,n_1,n_2\na,1,\n", f"n={given[0]}") == 2
    assert "samples.csv, row 2: n_2 is empty or NaN, no number" in capsys.readouterr().err
    assert init(tmp_path, table.replace("{0}", "0"), f"n={given[0]}", given[1]) == 0
    assert LabellingProject(tmp_path / "shop").project.pool.present.tolist() == [
        [True, True],
        [False, True],
        [True, True],
    ]


def test_lists_that_are_missing_or_uneven(tmp_path: Path, capsys) -> None:
    def given(lists: list[list[float] | None], present: list[int]) -> int:
        columns = {"id": ["a", "b", "c"], "n": lists, "present_n": present}
        pq.write_table(pa.table(columns), tmp_path / "samples.parquet")
        np.save(tmp_path / "x.npy", np.ones((3, 2)))
        flags = ["--features", "n=columns:n", "--features", f"x={tmp_path / 'x.npy'}"]
        return run.main(["init", str(tmp_path / "shop"), "--samples", str(tmp_path / "samples.parquet"), *flags])

    assert given([None, [1.0, 2.0], [3.0]], [0, 1, 1]) == 2
    assert "row 4: n holds 1 numbers, row 3 holds 2" in capsys.readouterr().err
    assert given([None, [1.0, 2.0], [3.0, 4.0]], [1, 1, 1]) == 2
    assert "row 0 (id 'a'), column 0: value nan" in capsys.readouterr().err
    assert given([None, [1.0, 2.0], [3.0, 4.0]], [0, 1, 1]) == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "nan.npy",
            np.array([[1.0, 2.0], [np.nan, 4.0], [5.0, 6.0]]),
            "nan.npy: Modality 'x', row 1 (id 'b'), column 0",
        ),
        ("text.npy", None, "text.npy is no .npy file"),
        ("objects.npy", np.array([["a", {}]] * 3, object), "objects.npy is no readable array of numbers"),
    ],
)
def test_broken_features_are_named(name: str, content: np.ndarray | None, words: str, tmp_path: Path, capsys) -> None:
    if content is None:
        (tmp_path / name).write_text("hello")
    else:
        np.save(tmp_path / name, content)
    assert init(tmp_path, "id\na\nb\nc\n", f"x={tmp_path / name}") == 2
    said = capsys.readouterr().err
    assert words in said and "pickle.load" not in said and not (tmp_path / "shop").exists()


def test_init_says_what_it_needs(tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    features = f"x={tmp_path / 'x.npy'}"
    assert init(tmp_path, "id\na\nb\n") == 2 and "--features MODALITY=FILE.npy" in capsys.readouterr().err
    assert init(tmp_path, "id,present_x\na,0\nb,0\n", features) == 2
    assert "no modality at all" in capsys.readouterr().err
    table = "id,split,present_y\na,train,0\nb,validation,1\n"
    assert init(tmp_path, table, features, f"y={tmp_path / 'x.npy'}") == 2
    assert "no sample to learn from has the modality 'y'" in capsys.readouterr().err
    assert init(tmp_path, "id,split\na,test\nb,validation\n", features) == 2
    assert "no sample is left to learn from" in capsys.readouterr().err
    more = ["--samples", str(tmp_path / "samples.csv"), "--features", features]
    for flags, words in (
        (["--policy", str(tmp_path / "none")], "No policy at"),
        (["--classes", "red,Red"], "another case"),
        (["--classes", "red,skip"], "'cannot tell'"),
    ):
        (tmp_path / "samples.csv").write_text("id\na\nb\n")
        assert run.main(["init", str(tmp_path / "shop"), *more, *flags]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "shop").exists()


def test_a_class_with_a_comma(project: LabellingProject, tmp_path: Path) -> None:
    assert tell(project, tmp_path, 'id,label\ns1,"blue, light"\n') == 2
    flags = ("--new-classes", '"blue, light", green')
    assert tell(project, tmp_path, 'id,label\ns1,"blue, light"\n', flags=flags) == 0
    assert project.project.state().classes == ["red", "blue", "blue, light", "green"]


def test_numbers_bytes_and_gaps_in_parquet(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(4, 3)))
    assert init(tmp_path, "id\n1\n2\n3\n4\n", f"x={tmp_path / 'x.npy'}") == 0
    pq.write_table(pa.table({"id": [1, 2], "label": [5.0, float("nan")]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [3.0, 4.0], "label": [b"red", None]}), tmp_path / "b.parquet")
    assert run.main(["tell", str(tmp_path / "shop"), str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")]) == 0
    assert votes(LabellingProject(tmp_path / "shop")) == {"1": {"annotator": "5"}, "3": {"annotator": "red"}}


def test_a_file_that_was_cut_off(project: LabellingProject, tmp_path: Path, capsys) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes("id,label\ns1,red\n".encode("utf-16")[:-1])
    assert run.main(["tell", str(project.project.path), str(file)]) == 2
    assert "ends in the middle of a character; it was cut off, or is not utf-16" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["two\nlines", 1, True, ["red"], ("red", "blue"), "re\u200bd", object()])
def test_labels_that_are_no_class(label, project: LabellingProject, tmp_path: Path) -> None:
    """By the Python interface."""
    with pytest.raises(DataError, match="Nothing was recorded"):
        project.tell({"s0": "red", "s1": label})
    with pytest.raises(ConfigError):
        project.tell([("s1", "red")])
    assert not votes(project)


@pytest.mark.parametrize("label", ["", " ", None, float("nan"), np.float32("nan")])
def test_samples_without_a_label_wait(label, project: LabellingProject) -> None:
    """From Python as in a file: closing them for good takes a word."""
    told = project.tell({"s0": "red", "s1": label})
    assert votes(project) == {"s0": {"annotator": "red"}} and (told.skipped, told.progress.unanswered) == (0, 29)
    assert project.tell({"s1": SKIP, "s2": "blue"}).skipped == 1
    assert votes(project)["s1"] == {"annotator": None}


@pytest.mark.parametrize(
    ("given", "name"), [(3, "3"), (3.0, "3"), (np.int64(3), "3"), (True, "True"), (" red ", "red"), ("3.0", "3")]
)
def test_labels_of_other_types(given, name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(2, 3)))
    assert init(tmp_path, "id\na\nb\n", f"x={tmp_path / 'x.npy'}") == 0
    project = LabellingProject(tmp_path / "shop")
    assert project.tell({"a": given}).new_classes == (name,)


def test_a_class_in_one_line(tmp_path: Path, capsys) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3)))
    assert init(tmp_path, 'id,label\na,"two\nlines"\nb,\n', f"x={tmp_path / 'x.npy'}") == 2
    assert "samples.csv, row 2: class 'two\\nlines'" in capsys.readouterr().err


def test_many_conflicts_do_not_fill_the_screen(project: LabellingProject, tmp_path: Path, capsys) -> None:
    texts = ["id,label\n" + "".join(f"s{i},{label}\n" for i in range(30)) for label in ("red", "blue")]
    assert tell(project, tmp_path, *texts, flags=("--annotator", "file")) == 0
    said = capsys.readouterr().out
    assert said.count("tied, without a label") == 20 and "10 more" in said


def test_an_id_that_no_table_could_name(tmp_path: Path) -> None:
    pool = Pool("mine", {"x": np.ones((2, 3))}, np.ones((2, 1), bool), np.full(2, -1), (), ids=np.array(["a", " b"]))
    with pytest.raises(DataError, match="mine: id ' b' has blanks around it"):
        create_project(tmp_path / "shop", Samples(pool, {}, ["", ""], "mine"), Settings("shop"))
