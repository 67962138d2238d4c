"""What `tell` and `status` say: figures against those computed by hand, and advice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs.pools import Pool
from labelling.api import LabellingProject
from labelling.creating import Samples, create_project
from labelling.model import Model, labels_of, prepare_rows
from labelling.progress import Progress, advice, in_lines, kappa
from labelling.project import Settings
from labelling.state import SKIP

CLASSES = ("red", "blue")


@pytest.fixture
def project(tmp_path: Path) -> LabellingProject:
    """Forty samples, of which the last ten only measure; few have the modality `b`."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = rng.normal(size=(40, 3)).astype(np.float32) + 2.0 * y[:, None]
    present = np.ones((40, 2), bool)
    present[:28, 1] = present[30:35, 1] = False
    split = np.where(np.arange(40) < 30, 0, 1).astype(np.int8)
    ids = np.array([f"s{i}" for i in range(40)])
    features = {"a": x, "b": rng.normal(size=(40, 2)).astype(np.float32)}
    pool = Pool("mine", features, present, np.full(40, -1), (), ids=ids, split=split)
    create_project(tmp_path / "shop", Samples(pool, {}, [""] * 40, "mine"), Settings("shop"))
    return LabellingProject(tmp_path / "shop")


def answers(rows, **other: str | None) -> dict[str, str | None]:
    return {f"s{i}": CLASSES[i % 2] for i in rows} | other


def test_corrections_are_compared_with_the_model_before_them(project: LabellingProject) -> None:
    """The earlier model is that of the labels as they were: without the corrections, with what was skipped since."""
    project.tell(answers(range(12)) | answers(range(30, 36)))
    wrong = {f"s{i}": CLASSES[1 - i % 2] for i in range(10)}
    told = project.tell(wrong | {"s11": SKIP})
    state = project.project.state()
    labels = labels_of(project.project, state)
    assert 11 not in labels.rows
    before = replace(labels, rows=np.arange(12), classes=np.array([0, 1] * 6))
    data = prepare_rows(project.project, labels, state.batches_ever, others=before.rows)
    now, earlier = (Model(data, some).probabilities(data.stop_set).argmax(1) for some in (labels, before))
    assert told.progress.agreement == pytest.approx(kappa(now, earlier)) and told.progress.agreement < 0.5
    right = Model(data, before).probabilities(labels.held_rows).argmax(1) == labels.held_classes
    assert told.progress.correct_before == right.sum() == sum(told.progress.class_correct_before.values())
    assert told.progress.correct < told.progress.correct_before


def test_a_modality_that_no_measuring_sample_has_is_not_measured(project: LabellingProject) -> None:
    progress = project.tell(answers(range(12)) | answers(range(30, 35))).progress
    assert set(progress.modality_accuracy) == {"a"} and "balance" not in "\n".join(in_lines(progress, []))
    progress = project.tell(answers(range(35, 38))).progress
    assert set(progress.modality_accuracy) == set(progress.modality_accuracy_before) == {"a", "b"}


def test_what_changed_is_said() -> None:
    figures = {
        "correct": 7,
        "correct_before": 6,
        "class_accuracy": {"a, b": [4, 5], "c": [3, 5], "d": [0, 0]},
        "class_correct_before": {"a, b": 4, "c": 2, "d": 0},
        "modality_accuracy": {"image": 0.75, "text": 0.5},
        "modality_accuracy_before": {"image": 0.8, "text": 0.4},
        "modality_weight": {"image": 0.6, "text": 0.4},
    }
    lines = in_lines(Progress(20, 10, 0, 70, {"a, b": 12, "c": 18, "d": 0}, confidence=0.8, **figures), [])
    assert [line.split(maxsplit=1)[1] for line in lines[2:4]] == [
        "70.0% [39.7%, 89.2%], +10.0 points by this (only 10 measuring labels)",
        "class     a, b: 4/5, c: 3/5 (+1)",
    ]
    assert lines[4].endswith("image 75.0% (-5.0 points, weight 0.60), text 50.0% (+10.0 points, weight 0.40)")
    assert lines[5].endswith("text is 25.0 points behind image; before this the gap was 40.0")


def after(labels: int, agreement: float | None, confidence: float) -> Progress:
    return Progress(labels, 10, 0, 100, {}, agreement=agreement, confidence=confidence)


@pytest.mark.parametrize(
    ("tells", "words"),
    [
        ([(20, 1.0, 1.0), (40, 1.0, 1.0)], "Too early"),
        ([(20, None, 1.0), (40, 1.0, 1.0), (60, 1.0, 1.0)], "Too early"),
        ([(20, 0.9, 0.95), (40, 0.9, 0.95), (60, 0.9, 0.95)], "still pays"),
        ([(20, 1.0, 0.6), (40, 1.0, 0.6), (60, 1.0, 0.6)], "settled, though"),
        ([(20, 1.0, 0.95), (40, 1.0, 0.95), (60, 1.0, 0.95)], "change little"),
        (
            [(20, None, 0.95), (21, 1.0, 0.95), (22, 1.0, 0.95), (22, 1.0, 0.95)],
            "Too early",
        ),  # of nearly the same labels
        ([(20, 0.9, 0.9), (40, 0.9, 0.9), (60, 0.9, 0.9), *[(61, 1.0, 0.9)] * 3], "still pays"),
    ],
)
def test_stopping_advice(tells, words: str) -> None:
    past = [after(*tell) for tell in tells]
    assert words in advice(past, past[-1])


def test_advice_where_labels_came_with_init() -> None:
    assert "tells" in advice([], after(20, None, 0.9)) and "two classes" in advice([], after(20, None, None))


def test_kappa() -> None:
    a, b = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
    assert kappa(a, a) == 1 and kappa(a, 1 - a) == -1 and kappa(a, b) == pytest.approx(0.5)
    assert kappa(np.zeros(3), np.zeros(3)) == 1
