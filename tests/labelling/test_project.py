"""A labelling project from init to export, by the Python interface and by the commands."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import run
from envs.errors import DataError
from envs.sources import open_dataset
from labelling.answers import Answer
from labelling.api import LabellingProject
from labelling.creating import create_project, samples_from_pool
from labelling.model import labels_of
from labelling.model_file import load_model
from labelling.project import Settings
from labelling.state import SKIP

SYNTHETIC = "synthetic:samples=300,classes=3,modalities=2,dim=6,missing=0.2,seed=4"


@pytest.fixture(scope="module")
def truth() -> dict[str, str]:
    pool = open_dataset(SYNTHETIC)
    return {i: pool.class_names[label] for i, label in zip(pool.ids.tolist(), pool.labels, strict=True)}


@pytest.fixture
def project(tmp_path: Path) -> LabellingProject:
    create_project(tmp_path / "shop", samples_from_pool(SYNTHETIC, False), Settings("shop", budget=100))
    return LabellingProject(tmp_path / "shop")


def read_csv(file: Path) -> list[dict[str, str]]:
    with open(file, newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def answers(project: LabellingProject, truth: dict[str, str], count: int = 20) -> dict[str, str]:
    return {row["id"]: truth[row["id"]] for row in project.ask(count)}


def test_a_person_labels_from_nothing(project: LabellingProject, truth: dict[str, str], tmp_path: Path) -> None:
    first = project.ask(20)
    assert len({row["id"] for row in first}) == 20
    assert project.ask(20) == first and project.ask(5) == first  # until something of it is answered
    seen = set()
    for _ in range(3):
        given = answers(project, truth)
        assert not seen & set(given)
        seen |= set(given)
        told = project.tell(given)
        assert told.recorded == 20 and not told.conflicts
    progress = told.progress
    assert progress.training_labels + progress.measuring_labels == 60 and progress.measuring_labels == 12
    assert progress.accuracy > 0.5 and progress.interval[0] < progress.accuracy < progress.interval[1]
    assert -1 <= progress.agreement <= 1 and progress.correct_before is not None
    assert project.status().correct == progress.correct
    for row in project.ask(5):
        assert row["predicted"] in truth.values() and 0 < row["confidence"] <= 1 and row["why"]
    assert project.export(tmp_path / "out") == ["labels.csv", "predictions.csv", "model"]
    labels = {row["id"]: row["label"] for row in read_csv(tmp_path / "out" / "labels.csv")}
    assert labels == {sample: truth[sample] for sample in seen}
    predictions = read_csv(tmp_path / "out" / "predictions.csv")
    assert {row["id"] for row in predictions} == set(truth) - seen

    model = load_model(tmp_path / "out" / "model")
    pool = project.project.pool
    whole = np.flatnonzero(pool.present.all(1))
    p = model.predict_proba({m: pool.take(m, whole) for m in pool.modalities})
    by_model = {i: model.classes[row.argmax()] for i, row in zip(pool.ids[whole].tolist(), p, strict=True)}
    exported = {row["id"]: row["predicted"] for row in predictions}
    open_and_whole = set(by_model) - seen
    assert len(open_and_whole) > 50
    assert {i: exported[i] for i in open_and_whole} == {i: by_model[i] for i in open_and_whole}


def test_the_first_batch_covers_the_pool(truth: dict[str, str], project: LabellingProject) -> None:
    """Typical samples of all parts: every class is met; those that measure are a random fifth."""
    rows = project.ask(20)
    assert {truth[row["id"]] for row in rows} == set(truth.values())
    assert sum(row["why"] == "drawn at random, to measure the accuracy" for row in rows) == 4


def test_measuring_rows_are_never_learned_from(project: LabellingProject, truth: dict[str, str]) -> None:
    project.tell(answers(project, truth, 30))
    labels = labels_of(project.project, project.project.state())
    assert not project.project.held_out[labels.rows].any() and project.project.held_out[labels.held_rows].all()


def test_annotators_corrections_skips_and_undo(project: LabellingProject) -> None:
    a, b, c = (row["id"] for row in project.ask(3))
    told = project.tell({a: "x", b: "y", c: SKIP})
    assert told.recorded == 3 and told.skipped == 1
    told = project.tell([Answer(a, "y", "ben"), Answer(b, "y", "ben")])
    assert told.conflicts == [{"id": a, "votes": {"annotator": "x", "ben": "y"}, "label": ""}]
    told = project.tell([Answer(a, "y", "cleo")])
    assert told.conflicts[0]["label"] == "y"
    told = project.tell({a: "y", b: "y"})
    assert (told.recorded, told.corrected, told.repeated, told.conflicts) == (1, 1, 1, [])
    assert told.progress.skipped == 1 and told.progress.classes == {"x": 0, "y": 2}
    assert "1 answers" in project.undo()
    assert project.project.state().verdicts()[a].disputed
    for _ in range(3):
        project.undo()
    assert not project.project.state().votes and "batch 1" in project.undo()


class Nearest:
    """One nearest neighbour, in the manner of scikit-learn."""

    def fit(self, x, y):
        self.x, self.y, self.classes_ = x, y, np.unique(y)
        return self

    def predict_proba(self, x):
        nearest = self.y[((x[:, None] - self.x) ** 2).sum(2).argmin(1)]
        return (nearest[:, None] == self.classes_).astype(float)


def test_a_classifier_of_the_users_own(project: LabellingProject, truth: dict[str, str], tmp_path: Path) -> None:
    own = LabellingProject(project.project.path, classifier=Nearest())
    own.tell(answers(own, truth))
    assert own.tell(answers(own, truth)).progress.accuracy is not None
    assert own.export(tmp_path / "out") == ["labels.csv", "predictions.csv"]
    with pytest.raises(Exception, match="no method fit"):
        LabellingProject(project.project.path, classifier=object())


def test_a_batch_file_that_is_being_filled_in_is_left_alone(project: LabellingProject) -> None:
    project.ask(5)
    file = project.project.batch_file(1)
    file.write_text(file.read_text().replace(",\n", ",x\n"))
    before = file.read_text()
    project.ask(5)
    assert file.read_text() == before


BAD = {
    "unknown id": ("id,label\nnobody,x\n", "row 2: no sample has the id 'nobody'"),
    "wrong columns": ("id,klass\n{0},x\n", "row 1: no column 'label'"),
    "outside the classes": ("id,label\n{0},red\n{1},rde\n", "row 3: label 'rde' is not among the classes"),
    "case": ("id,label\n{0},Red\n", "differs from class 'red' by case only"),
    "contradiction": ("id,label\n{0},red\n{0},blue\n", "row 3: annotator calls '{0}' 'blue', and 'red' in"),
    "empty": ("", "is empty"),
    "no answer": ("id,label\n{0},\n", "holds no answer"),
    "no id": ("id,label\n,red\n", "row 2: label 'red' has no id"),
    "ragged": ("id,label\n{0},red,more,still\n", "row 2: 4 values, but the header has 2 columns"),
    "quote": ('id,label\n"{0},red\n', "not a row of a CSV file"),
    "zero bytes": ("id,label\n\0\0\0", "is not a text file"),
    "column twice": ("id,label,label\n{0},red,blue\n", "column 'label' occurs twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_and_nothing_is_applied(case: str, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "shop"
    create_project(folder, samples_from_pool(SYNTHETIC, False), Settings("shop", classes=("red", "blue")))
    ids = open_dataset(SYNTHETIC).ids
    file = tmp_path / "labels.csv"
    text, words = (part.replace("{0}", ids[0]).replace("{1}", ids[1]) for part in BAD[case])
    file.write_text(text)
    before = (folder / "journal.jsonl").exists() and (folder / "journal.jsonl").read_bytes()
    assert run.main(["tell", str(folder), str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "labels.csv" in said and words in said
    assert ((folder / "journal.jsonl").exists() and (folder / "journal.jsonl").read_bytes()) == before


@pytest.mark.parametrize(
    "encoded",
    [
        "id;label\n{0};Löwe\n".encode("utf-8-sig"),
        "id\tlabel\n{0}\tLöwe\n".encode("utf-16"),
        'label,id\r\n"Löwe",{0}\r\n\r\n'.encode(),
        "ID, Label ,comment\n{0}, Löwe ,x\n".encode(),
    ],
)
def test_dialects_and_encodings(encoded: bytes, project: LabellingProject, tmp_path: Path) -> None:
    sample = project.project.pool.ids[0]
    codec = "utf-16" if encoded.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    (tmp_path / "labels.csv").write_bytes(encoded.decode(codec).replace("{0}", sample).encode(codec))
    assert run.main(["tell", str(project.project.path), str(tmp_path / "labels.csv")]) == 0
    assert project.project.state().verdicts()[sample].label == "Löwe"


def test_another_encoding_is_asked_for_by_place(project: LabellingProject, tmp_path: Path, capsys) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(f"id,label\n{project.project.pool.ids[0]},Löwe\n".encode("cp1252"))
    assert run.main(["tell", str(project.project.path), str(file)]) == 2
    assert "line 2" in (said := capsys.readouterr().err) and "--encoding cp1252" in said
    assert run.main(["tell", str(project.project.path), str(file), "--encoding", "cp1252"]) == 0


def table(tmp_path: Path, **changes) -> list[str]:
    """Arguments of `init` for twelve samples with two modalities."""
    columns = {"id": [f"s{i}" for i in range(12)], "text": [f"text {i}" for i in range(12)]} | changes
    pq.write_table(pa.table(columns), tmp_path / "samples.parquet")
    if not (tmp_path / "image.npy").exists():
        np.save(tmp_path / "image.npy", np.random.default_rng(0).normal(size=(12, 4)))
    features = ["--features", f"image={tmp_path / 'image.npy'}", "--features", "numbers=columns:n_*"]
    return ["init", str(tmp_path / "shop"), "--samples", str(tmp_path / "samples.parquet"), *features]


NUMBERS = {f"n_{d}": [float(i + d) for i in range(12)] for d in range(3)}


def test_init_from_a_table(tmp_path: Path, capsys) -> None:
    given = NUMBERS | {"present_image": [1] * 11 + [0], "label": ["cat", "dog", *[""] * 10]}
    assert run.main(table(tmp_path, **given)) == 0
    project = LabellingProject(tmp_path / "shop").project
    assert project.pool.modalities == ("image", "numbers") and not project.pool.present[11, 0]
    assert {i: v.label for i, v in project.state().verdicts().items()} == {"s0": "cat", "s1": "dog"}
    assert LabellingProject(tmp_path / "shop").ask(3)[0]["text"].startswith("text")
    assert run.main(table(tmp_path, **given)) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"id": ["s0"] * 12}, "id 's0' occurs in rows 2 and 3"),
        ({"present_imagee": [1] * 12}, "column 'present_imagee' belongs to no modality"),
        ({"n_1": ["x"] * 12}, "row 2: n_1 is 'x', no number"),
        ({"n_1": [float("nan")] * 12}, "not finite|NaN|nan"),
        ({"split": ["maybe"] * 12}, "row 2: split is 'maybe'"),
    ],
)
def test_bad_tables(changes, words: str, tmp_path: Path, capsys) -> None:
    assert run.main(table(tmp_path, **NUMBERS | changes)) == 2
    said = capsys.readouterr().err
    assert re.search(words, said) and "samples" in said
    assert not (tmp_path / "shop").exists()


def test_features_that_changed_since_init(project: LabellingProject) -> None:
    file = next((project.project.path / "pool" / "features").glob("*.npy"))
    x = np.load(file)
    x[0] += 1
    np.save(file, x)
    with pytest.raises(DataError, match="is not what it was at init"):
        LabellingProject(project.project.path).ask(5)


def test_export_replaces_only_exports(project: LabellingProject, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="no earlier export"):
        project.export(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
    assert project.export(tmp_path / "out") == project.export(tmp_path / "out") == ["labels.csv"]


def test_labelling_needs_no_ray(without_ray, project: LabellingProject) -> None:
    code = "import sys, run; sys.exit(run.main(sys.argv[1:]))"
    assert "batch-0001.csv" in without_ray(code, "ask", str(project.project.path), "--batch", "5")


STAGES = ("ask", "tell", "export")


def labeller(path: Path, truth: dict[str, str], log: Path, stage: int, cycles: int) -> None:
    """Ask, tell and export, each announced by a byte into the pipe `stage` before it begins.

    What was told goes to the log only once `tell` returned.
    """
    for _ in range(cycles):
        os.write(stage, b"0")
        mine = LabellingProject(path)
        given = {row["id"]: truth[row["id"]] for row in mine.ask(2)}
        os.write(stage, b"1")
        mine.tell(given)
        acknowledged = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.write(acknowledged, (json.dumps(given) + "\n").encode())
        os.close(acknowledged)
        os.write(stage, b"2")
        mine.export(path.parent / "out")


def start(*given) -> tuple[int, int]:
    """A process that labels, and the end of its pipe."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            labeller(*given[:3], writer, given[3])
        finally:
            os._exit(0)
    os.close(writer)
    return child, reader


def sessions(path: Path, truth: dict[str, str], kills: int, seed: int) -> Iterator[str]:
    """Kill -9 a process that labels, at a random moment of ask, tell and export in turn; yields what it was doing."""
    rng = random.Random(seed)
    log = path.parent / "acknowledged.jsonl"
    log.touch()
    child, reader = start(path, truth, log, 1)  # one cycle in peace, to know how long each part takes
    times = []
    while os.read(reader, 1):
        times.append(time.perf_counter())
    lasts = np.diff([*times, time.perf_counter()])
    os.close(reader)
    os.waitpid(child, 0)
    assert len(times) == len(STAGES)
    before: dict[str, str | None] = {}
    for kill in range(kills):
        child, reader = start(path, truth, log, 1000)
        aim = kill % len(STAGES)
        stage = b""
        while stage != str(aim).encode():
            stage = os.read(reader, 1)
            assert stage, "the labelling process ended by itself"
        time.sleep(rng.uniform(0.0, lasts[aim]))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as pipe:
            stage = (stage + pipe.read())[-1:]
        acknowledged: dict[str, str] = {}
        for line in log.read_text().splitlines():
            acknowledged |= json.loads(line)
        held = {i: v.label for i, v in LabellingProject(path).project.state().verdicts().items()}
        assert acknowledged and acknowledged.items() <= held.items()
        assert before.items() <= held.items()
        assert all(truth[i] == label for i, label in held.items())
        before = held
        if (path.parent / "out").exists():  # the swap of an older export for a new one has an instant without any
            assert all(file.read_text().endswith("\n") for file in (path.parent / "out").glob("*.csv"))
            if (path.parent / "out" / "model").exists():  # there is none before two classes have labels
                assert load_model(path.parent / "out" / "model").classes
        yield STAGES[int(stage)]


def test_kill_9_at_random_points(project: LabellingProject, truth: dict[str, str]) -> None:
    assert set(sessions(project.project.path, truth, kills=18, seed=1)) == set(STAGES)


@pytest.mark.slow
def test_kill_9_hundreds_of_times(project: LabellingProject, truth: dict[str, str]) -> None:
    """400 kills in all; nothing acknowledged is lost."""
    hit = Counter()
    for seed in range(4):
        folder = project.project.path.parent / f"run{seed}"
        create_project(folder / "shop", samples_from_pool(SYNTHETIC, False), Settings("shop", budget=100))
        hit.update(sessions(folder / "shop", truth, kills=100, seed=seed))
    print(dict(hit))
    assert sum(hit.values()) == 400 and min(hit[stage] for stage in STAGES) > 20  # how they divide depends on it
