"""The model behind a project: how often it trains, what it knows, and another classifier in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import envs.models.frozen.model
import envs.models.frozen.trainer
from envs.errors import ConfigError
from envs.sources import open_dataset
from labelling.api import LabellingProject
from labelling.creating import create_project, samples_from_pool
from labelling.model import ClassifierModel, Model, labels_of, prepare_rows
from labelling.project import Settings

SYNTHETIC = "synthetic:samples=200,classes=3,modalities=2,dim=5,missing=0.2,seed=4"


@pytest.fixture
def project(tmp_path: Path) -> LabellingProject:
    create_project(tmp_path / "shop", samples_from_pool(SYNTHETIC, False), Settings("shop", budget=60))
    return LabellingProject(tmp_path / "shop")


@pytest.fixture
def truth() -> dict[str, str]:
    pool = open_dataset(SYNTHETIC)
    return {i: pool.class_names[label] for i, label in zip(pool.ids.tolist(), pool.labels, strict=True)}


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each training learned from, as they happen."""
    counts: list[int] = []
    for module in (envs.models.frozen.trainer, envs.models.frozen.model):
        fit = module.fit

        def counting(initial: Any, rows: Any, *more: Any, fit: Callable[..., Any] = fit) -> Any:
            counts.append(rows.labels.shape[1])
            return fit(initial, rows, *more)

        monkeypatch.setattr(module, "fit", counting)
    return counts


class Favourite:
    """A classifier that sees in every sample the first class by name that it was told."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Favourite:
        self.seen, self.classes_ = len(x), np.unique(y)
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        p = np.full((len(x), len(self.classes_)), 0.1 / max(len(self.classes_) - 1, 1))
        p[:, 0] = 0.9
        return p


def test_every_model_trains_once(project: LabellingProject, truth: dict[str, str], fits: list[int]) -> None:
    first = project.ask(20)
    assert fits == []  # nothing to learn from yet
    progress = project.tell({row["id"]: truth[row["id"]] for row in first}).progress
    assert fits == [progress.training_labels]
    fits.clear()
    second = project.ask(10)
    assert fits == [progress.training_labels]
    fits.clear()
    later = project.tell({row["id"]: truth[row["id"]] for row in second}).progress
    assert fits == [later.training_labels, progress.training_labels]  # the model before this is compared
    fits.clear()
    project.tell({row["id"]: truth[row["id"]] for row in second})  # known already
    assert fits == [later.training_labels]
    fits.clear()
    project.status()
    assert fits == [later.training_labels]


@pytest.fixture
def told(project: LabellingProject, truth: dict[str, str]) -> LabellingProject:
    """A project with 30 labels."""
    project.tell({row["id"]: truth[row["id"]] for row in project.ask(30)})
    return project


def model_of(project: LabellingProject, classifier: Any = None) -> Model:
    state = project.project.state()
    labels = labels_of(project.project, state)
    data = prepare_rows(project.project, labels, 1, 5)
    return Model(data, labels, classifier, np.setdiff1d(data.working, labels.rows))


def test_a_round_is_about_the_open_rows_and_the_labelled_ones(told: LabellingProject) -> None:
    model = model_of(told)
    round_ = model.round(used=30, budget=60, batch_size=5)
    assert (round_.index, round_.rounds, round_.episodes) == (6, 12, 1)
    open_rows, known = model.rows[round_.available[0].numpy()], model.rows[round_.labelled[0].numpy()]
    assert set(known) == set(model.labels.rows) and not set(open_rows) & set(known)
    by_row = dict(zip(model.labels.rows.tolist(), model.labels.classes.tolist(), strict=True))
    assert round_.labels[0].tolist() == [by_row[row] for row in known]
    held_out = told.project.held_out
    assert not held_out[open_rows].any() and not held_out[known].any()
    assert model.round(used=59, budget=10, batch_size=5).index == 1  # the last one, however many there were


def test_probabilities_are_those_of_the_rounds_model(told: LabellingProject) -> None:
    model = model_of(told)
    p = model.round(30, 60, 5).outputs.probabilities[0].T
    np.testing.assert_allclose(model.probabilities(model.rows), p, atol=1e-6)
    assert model.probabilities(model.rows[:0]).shape == (0, 3)


def test_another_classifier_answers_for_the_whole_pool_and_at_positions_alike(told: LabellingProject) -> None:
    given = Favourite()
    model = model_of(told, given)
    assert not hasattr(given, "seen") and model.classifier.seen == len(model.labels.rows)  # a copy learned
    round_ = model.round(30, 60, 5)
    assert isinstance(round_.model, ClassifierModel)
    positions = torch.tensor([[4, 0, 9]])
    first = model.labels.names.index(min(model.labels.names))
    for outputs, own in (
        (round_.model.outputs(), model.model.outputs()),
        (round_.model.outputs(positions), model.model.outputs(positions)),
    ):
        p = outputs.probabilities
        torch.testing.assert_close(p[:, first], torch.full_like(p[:, first], 0.9))
        assert torch.equal(outputs.hidden, own.hidden) and torch.equal(outputs.evidence, own.evidence)
    whole = round_.model.outputs()
    assert torch.equal(round_.model.outputs(positions).logits, whole.logits[..., positions[0]])
    assert not torch.equal(whole.logits, model.model.outputs().logits)


def test_the_rest_of_another_classifiers_model_is_the_task_models(told: LabellingProject) -> None:
    model = model_of(told, Favourite())
    other = model.round(30, 60, 5).model
    for name in ("head", "loss_slope", "gradient_norm"):
        assert torch.equal(getattr(other, name), getattr(model.model, name))
    assert torch.equal(other.inputs(), model.model.inputs())
    assert torch.equal(other.held_out().correct, model.model.held_out().correct)
    rows = model.rows[:3]
    assert torch.equal(other.outputs_of(rows).logits, model.model.outputs_of(rows).logits)
    assert torch.equal(other.outputs_held_out(slice(2)).logits, model.model.outputs_held_out(slice(2)).logits)
    refitted = [m.refitted("cross_entropy").outputs().modality_logits for m in (other, model.model)]
    assert torch.equal(*refitted)


class Unnamed(Favourite):
    """Of a class that nobody told."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Unnamed:
        super().fit(x, y)
        self.classes_ = np.array(["a class from elsewhere"])
        return self


class Short(Favourite):
    """With a column too few."""

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return super().predict_proba(x)[:, 1:]


@pytest.mark.parametrize(
    ("classifier", "words"), [(Unnamed(), "'a class from elsewhere'"), (Short(), "must give finite numbers")]
)
def test_a_classifier_that_answers_wrongly_is_named(told: LabellingProject, classifier: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        model_of(told, classifier).round(30, 60, 5)
