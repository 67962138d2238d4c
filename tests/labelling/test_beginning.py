"""What a project begins with: classes by every door, first labels, copies, and what the first figures rest on."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import run
from envs.errors import ConfigError, DataError
from envs.pools import Pool
from labelling.api import LabellingProject
from labelling.creating import Samples, create_project
from labelling.journal import Journal
from labelling.model import Model, labels_of, prepare_rows
from labelling.progress import in_lines
from labelling.project import Settings

COUNT = 40


def features(count: int = COUNT, copies: int = 1) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(count // copies, 4))
    return np.tile(x, (copies, 1))


def init(folder: Path, labels: list[str], *flags: str) -> int:
    with open(folder / "items.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "label"), *((f"s{i}", label) for i, label in enumerate(labels))])
    np.save(folder / "x.npy", features()[: len(labels)])
    samples = ["--samples", str(folder / "items.csv"), "--features", f"x={folder / 'x.npy'}"]
    return run.main(["init", str(folder / "shop"), *samples, *flags])


def project(folder: Path) -> LabellingProject:
    return LabellingProject(folder / "shop")


def by_csv(folder: Path, label: str) -> int:
    (folder / "told.csv").write_text(f'id,label\ns9,"{label}"\n', "utf-8")
    return run.main(["tell", str(folder / "shop"), str(folder / "told.csv")])


def by_parquet(folder: Path, label: str) -> int:
    pq.write_table(pa.table({"id": ["s9"], "label": [label]}), folder / "told.parquet")
    return run.main(["tell", str(folder / "shop"), str(folder / "told.parquet")])


def by_label_studio(folder: Path, label: str) -> int:
    result = {"from_name": "label", "to_name": "sample", "type": "choices", "value": {"choices": [label]}}
    task = {"data": {"sample": "s9"}, "annotations": [{"result": [result]}]}
    (folder / "told.json").write_text(json.dumps([task]), "utf-8")
    return run.main(["tell", str(folder / "shop"), str(folder / "told.json"), "--annotator", "annotator"])


def by_python(folder: Path, label: str) -> int:
    try:
        project(folder).tell({"s9": label})
    except DataError as error:
        run.sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def by_new_classes(folder: Path, label: str) -> int:
    (folder / "told.csv").write_text("id,label\ns9,skip\n")
    return run.main(["tell", str(folder / "shop"), str(folder / "told.csv"), "--new-classes", label])


ANSWERS = [by_csv, by_parquet, by_label_studio, by_python]


@pytest.mark.parametrize("flags", [(), ("--classes", "Größe,7,true,x")])
@pytest.mark.parametrize("door", ANSWERS)
@pytest.mark.parametrize(
    ("label", "name"),
    [("7.0", "7"), (unicodedata.normalize("NFD", "Größe"), "Größe"), ("TRUE", "true"), ("WAHR", "true"), ("x ", "x")],
)
def test_answers_in_another_spelling(door, label: str, name: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    assert init(tmp_path, ["Größe", "7.0", "true", "x"] + [""] * 8, *flags) == 0
    before = project(tmp_path).project.state().classes
    assert door(tmp_path, label) == 0
    state = project(tmp_path).project.state()
    assert state.votes["s9"] == {"annotator": name} and state.classes == before and "7" in before


@pytest.mark.parametrize("door", [*ANSWERS, by_new_classes])
@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("red", "differs from class 'Red' by case only"),
        ("Red\u200b", "invisible"),
        ("GrÃ¶ÃŸe", "Größe"),
        ("two\nlines", "one line"),
    ],
)
def test_doubtful_answers_are_asked(door, label: str, words: str, tmp_path: Path, capsys) -> None:
    assert init(tmp_path, ["Red", "Größe"] + [""] * 8) == 0
    before = (tmp_path / "shop" / "journal.jsonl").read_bytes()
    if door is by_new_classes and "\n" in label:
        pytest.skip("a flag ends at the line")
    assert door(tmp_path, label) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert (tmp_path / "shop" / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize("door", ANSWERS)
@pytest.mark.parametrize("label", ["nan", "None", "<NA>", "unlabeled", "NA"])
def test_no_class_is_asked_and_can_be_declared(door, label: str, tmp_path: Path, capsys) -> None:
    assert init(tmp_path, ["red", "blue"] + [""] * 8) == 0
    assert door(tmp_path, label) == 2
    assert f"declare it: --new-classes '{label}'" in capsys.readouterr().err
    assert by_new_classes(tmp_path, label) == 0
    assert door(tmp_path, label) == 0
    assert project(tmp_path).project.state().votes["s9"] == {"annotator": label}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["Red", "red", "RED"] * 2, "row 3: label 'red' differs from class 'Red' by case only; write one of the two"),
        (["red", "nan", "red", "nan"], "label 'nan' (2 of 4 labels) looks like none"),
        (["a", "b", "a#b", ""], "seems to name several classes (a, b)"),
        (["Größe", "GrÃ¶ÃŸe", ""], "read in two encodings"),
    ],
)
def test_first_labels_are_asked(labels: list[str], words: str, tmp_path: Path, capsys) -> None:
    assert init(tmp_path, labels) == 2
    said = capsys.readouterr().err
    assert "items.csv, row " in said and words in said and not (tmp_path / "shop").exists()


@pytest.mark.parametrize("name", ["None", "NA", "null", "nan", "-1"])
def test_first_labels_may_be_called_anything(name: str, tmp_path: Path, capsys) -> None:
    assert init(tmp_path, ["red", name, name, ""]) == 2
    command = capsys.readouterr().err.split("--classes '")[1].split("'")[0]  # as the message has it
    assert init(tmp_path, ["red", name, name, ""], f"--classes={command}") == 0
    assert project(tmp_path).project.state().classes == ["red", name]


@pytest.mark.parametrize("given", ["Blue,blue", "7,7.0", "light blue,light_blue", "red,re\u200bd"])
def test_classes_that_are_one(given: str, tmp_path: Path, capsys) -> None:
    assert init(tmp_path, ["", ""], "--classes", given) == 2
    assert "lass " in capsys.readouterr().err and not (tmp_path / "shop").exists()
    assert init(tmp_path, ["", ""]) == 0
    (tmp_path / "told.csv").write_text("id,label\ns0,skip\n")
    assert run.main(["tell", str(tmp_path / "shop"), str(tmp_path / "told.csv"), "--new-classes", given]) == (
        0 if given == "7,7.0" else 2
    )


def test_a_project_of_an_earlier_release_keeps_its_classes(tmp_path: Path) -> None:
    """Two spellings that stand in its journal are what they were; nothing is asked about them."""
    assert init(tmp_path, [""] * 12) == 0
    old = ["Red", "red", "7", "7.0", "nan", "re\u200bd", "café", unicodedata.normalize("NFD", "café")]
    labels = [[f"s{i}", name, "annotator", 0, i + 2] for i, name in enumerate(old)]
    Journal(tmp_path / "shop" / "journal.jsonl").append("told", files=["a.csv"], new_classes=old, labels=labels)
    for i, name in enumerate(old):
        project(tmp_path).tell({"s9": name})
        state = project(tmp_path).project.state()
        assert state.classes == old and state.votes["s9"] == {"annotator": name}, i


@pytest.mark.parametrize("flags", [(), ("--with-labels",)])
def test_one_labelled_sample_of_each_class(flags: tuple[str, ...], tmp_path: Path) -> None:
    y = np.full(COUNT, -1)
    y[:3] = 0, 1, 2
    np.savez(tmp_path / "pool.npz", x_a=features(), y=y)
    assert run.main(["init", str(tmp_path / "shop"), "--samples", str(tmp_path / "pool.npz"), *flags]) == 0
    assert len(project(tmp_path).project.state().votes) == (3 if flags else 0)


def test_a_pool_declares_its_classes(tmp_path: Path) -> None:
    y = np.array(["nan", "NA", "", ""] * 3)
    np.savez(tmp_path / "pool.npz", x_a=features()[:12], y=y, class_names=np.array(["NA", "nan", "other"]))
    shop = str(tmp_path / "shop")
    assert run.main(["init", shop, "--samples", str(tmp_path / "pool.npz"), "--with-labels"]) == 0
    assert project(tmp_path).project.state().classes == ["nan", "NA"]


def test_a_batch_says_its_encoding_where_it_matters(tmp_path: Path) -> None:
    """Without a mark a spreadsheet reads UTF-8 as cp1252; what it saves then is another class."""
    assert init(tmp_path, ["Größe"] * 8 + ["blau"] * 8 + [""] * 8) == 0
    project(tmp_path).ask(4)
    file = tmp_path / "shop" / "batches" / "batch-0001.csv"
    assert file.read_bytes().startswith(b"\xef\xbb\xbf") == (not file.read_text("utf-8-sig").isascii())
    text = file.read_text("utf-8-sig")
    file.write_text("\ufeff" + text.replace(",,", ",Größe,"), "utf-8")
    assert run.main(["tell", str(tmp_path / "shop"), str(file)]) == 0


def pool_of_copies(**changes) -> Pool:
    x = features(120, copies=5)
    given = {"labels": np.full(120, -1), "ids": np.array([f"s{i}" for i in range(120)]), "class_names": ()}
    return Pool(name="copies", features={"x": x}, present=np.ones((120, 1), bool), **given | changes)


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_copies_are_never_divided(seed: int, groups: bool, tmp_path: Path) -> None:
    """Nor are groups, nor groups that share copies."""
    group = np.array([f"g{i // 2}" for i in range(120)])
    pool = pool_of_copies(**({"group": group} if groups else {}))
    made = create_project(tmp_path / "shop", Samples(pool, {}, [""] * 120, "copies"), Settings("shop", seed=seed))
    sides = made.held_out.reshape(5, 24)
    assert (sides == sides[0]).all() and 0 < made.held_out.sum() < 60
    if groups:
        assert (made.held_out[::2] == made.held_out[1::2]).all()


def test_the_first_batch_takes_copies_last(tmp_path: Path) -> None:
    pool = pool_of_copies()
    create_project(tmp_path / "shop", Samples(pool, {}, [""] * 120, "copies"), Settings("shop"))
    mine = LabellingProject(tmp_path / "shop")
    learn = ~mine.project.held_out[:24]
    for size in (12, 30):
        picked = [int(row["id"][1:]) % 24 for row in mine.ask(size) if row["why"].startswith("typical")]
        times = np.bincount(picked, minlength=24)[learn]
        assert times.max() - times.min() <= 1 and times.max() == -(-len(picked) // learn.sum())
        mine.undo()
    first = int(mine.ask(4)[0]["id"][1:])
    mine.tell({f"s{first}": "red"})  # one class: the pool is still being covered
    assert first % 24 not in {int(row["id"][1:]) % 24 for row in mine.ask(10) if row["why"].startswith("typical")}


def test_init_says_what_is_odd(tmp_path: Path, capsys) -> None:
    x = features(120, copies=5)
    split = np.where(np.arange(120) < 90, 0, 1)
    np.savez(tmp_path / "a.npz", x_x=x, x_c=np.full((120, 2), 3.5), y=np.full(120, -1))
    np.savez(tmp_path / "b.npz", x_x=x, y=np.full(120, -1), split=split)
    assert run.main(["init", str(tmp_path / "a"), "--samples", str(tmp_path / "a.npz")]) == 0
    said = capsys.readouterr().out
    assert "96 samples are exact copies of others (24 differ); they are never divided" in said
    assert "constant        c: the same numbers in every sample" in said
    assert run.main(["init", str(tmp_path / "b"), "--samples", str(tmp_path / "b.npz")]) == 0
    assert "the split puts 120 of them on both sides" in capsys.readouterr().out
    assert init(tmp_path, ["TRUE", ""], "--classes", "true,false") == 0
    said = capsys.readouterr().out
    assert "read as         TRUE as the class true" in said and "copies" not in said and "constant" not in said


def test_labels_that_were_just_there_measure_nothing(tmp_path: Path) -> None:
    """An interval takes rows that `ask` drew. Those that were there by chance do not count beside them."""
    rng = np.random.default_rng(1)
    y = np.arange(200) % 3
    x = rng.normal(size=(3, 6))[y] * 2 + rng.normal(size=(200, 6))
    pool = Pool(
        "mine", {"x": x}, np.ones((200, 1), bool), np.full(200, -1), (), ids=np.array([f"s{i}" for i in range(200)])
    )
    had = [f"c{c}" if c < 2 and i % 2 else "" for i, c in enumerate(y)]
    create_project(tmp_path / "shop", Samples(pool, {}, had, "mine"), Settings("shop", validation=0.3))
    mine = LabellingProject(tmp_path / "shop")
    progress = mine.status()
    assert progress.measuring_labels > 5 and progress.accuracy is not None
    assert progress.interval is None and not progress.at_random
    assert any("none was drawn at random" in line for line in in_lines(progress, []))
    there = {sample for sample, label in zip(pool.ids.tolist(), had, strict=True) if label}
    drawn: set[str] = set()
    for _ in range(4):
        batch = {row["id"]: f"c{y[int(row['id'][1:])]}" for row in mine.ask(20)}
        drawn |= {sample for sample in batch if mine.project.held_out[int(sample[1:])]}
        progress = mine.tell(batch).progress
    assert drawn and not drawn & there
    assert progress.interval is not None and progress.measured_labels == len(drawn) < progress.measuring_labels
    labels = labels_of(mine.project, mine.project.state())
    data = prepare_rows(mine.project, labels, 4)
    rows = np.array([row for row in labels.held_rows if f"s{row}" in drawn])
    predicted = Model(data, labels).probabilities(rows).argmax(1)
    assert progress.correct == sum(labels.names[p] == f"c{y[row]}" for p, row in zip(predicted, rows, strict=True))
    assert sum(n for _, n in progress.class_accuracy.values()) == len(drawn)


def test_measuring_samples_that_all_have_labels_are_no_choice(tmp_path: Path) -> None:
    assert init(tmp_path, ["red", "blue"] * 20) == 0
    progress = project(tmp_path).status()
    assert progress.interval is not None and progress.measured is None


class ByNumber:
    """Takes classes 0 to K - 1 only, as gradient boosting and networks do."""

    def fit(self, x, y):
        if y.dtype.kind not in "iu" or set(y.tolist()) != set(range(len(set(y.tolist())))):
            raise ValueError("Invalid classes")
        self.centres = np.stack([x[y == c].mean(0) for c in range(y.max() + 1)])

    def predict_proba(self, x):
        p = np.exp(-((x[:, None] - self.centres) ** 2).sum(2) * 5)
        return p / p.sum(1, keepdims=True)


class Numbered(ByNumber):
    def fit(self, x, y):
        super().fit(x, y)
        self.classes_ = np.arange(len(self.centres))


class Hopeless(ByNumber):
    def fit(self, x, y):
        raise ValueError("too few neighbours")


@pytest.mark.parametrize("kind", [ByNumber, Numbered])
def test_a_classifier_that_wants_numbers(kind: type, tmp_path: Path) -> None:
    names = ["zebra", "ape", "10"]
    assert init(tmp_path, [names[i % 3] for i in range(30)] + [""] * 10) == 0
    mine = LabellingProject(tmp_path / "shop", classifier=kind())
    labels = labels_of(mine.project, mine.project.state())
    model = Model(prepare_rows(mine.project, labels, 0), labels, kind())
    x, y = mine.project.pool.features["x"], np.array(labels.names)[labels.classes]
    nearest = sorted(names)[
        np.argmin([((x[labels.rows[0]] - x[labels.rows][y == name].mean(0)) ** 2).sum() for name in sorted(names)])
    ]
    assert labels.names[model.probabilities(labels.rows[:1]).argmax()] == nearest
    with pytest.raises(ConfigError, match=r"fit failed on .* too few neighbours"):
        LabellingProject(tmp_path / "shop", classifier=Hopeless()).status()
