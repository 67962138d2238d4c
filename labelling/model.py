"""The model behind a project: labels as they stand become a trained classifier and a `Round`."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from envs.errors import ConfigError
from envs.models.frozen.model import TaskModelConfig, rows_at
from envs.models.frozen.preparation import PreparedPool, prepare
from envs.pools.partition import Roles
from envs.pools.pool import Pool
from envs.round import Round
from envs.simulation import ProtocolConfig, Simulation, Start
from labelling.project import Project
from labelling.state import State

WORKING_ROWS = 20_000  # training rows, drawn anew for each batch, that a larger project looks at at a time
STOP_SET = 2_000  # rows, always the same, whose predictions tell whether the model still changes
BLOCK = 8_192  # rows predicted at a time


class Classifier(Protocol):
    """A classifier in the manner of scikit-learn."""

    def fit(self, features: np.ndarray, labels: np.ndarray) -> Any:
        """Learn from features float32 [n, D], all modalities side by side, zeros where absent; labels str [n]."""

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Probabilities [n, C], columns in the order of `classes_`, or of the sorted labels without that attribute."""


@dataclass(frozen=True)
class Labels:
    """Who is labelled, as rows of the pool and classes; training rows in the order in which labels arrived."""

    rows: np.ndarray  # int64 [n]
    classes: np.ndarray  # int64 [n]
    held_rows: np.ndarray  # int64 [v] rows that only measure
    held_classes: np.ndarray  # int64 [v]
    closed: np.ndarray  # int64 rows that are answered, but without a label: skipped, or tied
    names: tuple[str, ...]

    @property
    def enough(self) -> bool:
        """Whether there is something to learn: two classes."""
        return len(np.unique(self.classes)) > 1


def labels_of(project: Project, state: State) -> Labels:
    """The majority labels of a project."""
    index = {name: i for i, name in enumerate(state.classes)}
    verdicts = state.verdicts()
    decided = [(project.rows[sample], index[v.label]) for sample, v in verdicts.items() if v.label is not None]
    pairs = np.array(decided, np.int64).reshape(-1, 2)
    held = project.held_out[pairs[:, 0]]
    closed = [project.rows[sample] for sample, v in verdicts.items() if v.label is None]
    return Labels(
        *(pairs[~held].T.copy()), *(pairs[held].T.copy()), np.array(closed, np.int64), tuple(state.classes)
    )  # fmt: skip


def prepare_rows(project: Project, labels: Labels, turn: int, batch_size: int = 0, others: Sequence[int] = ()) -> Data:
    """Read and scale the rows that a command needs.

    Args:
        labels: whose rows are to be there, and whose classes are counted.
        turn: number of batches so far, which decides the working rows of a project with more than `WORKING_ROWS`.
        batch_size: of the batch to be chosen; the working rows suffice for the policy's candidates.
        others: rows to be mapped as well.
    """
    pool, seed = project.pool, project.settings.seed
    training = np.flatnonzero(~project.held_out)
    count = max(WORKING_ROWS, 50 * batch_size)
    working = training
    if len(training) > count:
        working = np.random.default_rng([seed, turn, 0xA5]).choice(training, count, replace=False)
    working = np.union1d(working, labels.rows)
    shuffled = np.random.default_rng([seed, 0x57]).permutation(training)
    stop_set = np.sort(shuffled[:STOP_SET])
    further = np.setdiff1d(np.union1d(np.union1d(stop_set, labels.held_rows), np.array(others, np.int64)), working)
    config = TaskModelConfig()
    prepared = prepare(pool, working, further, config.projection_dim)
    return Data(pool, replace(prepared, num_classes=max(len(labels.names), 2)), working, stop_set, config, seed)


@dataclass(frozen=True)
class Data:
    """Scaled rows of a project."""

    pool: Pool
    prepared: PreparedPool
    working: np.ndarray  # int64, ascending: training rows at hand
    stop_set: np.ndarray  # int64, ascending
    config: TaskModelConfig
    seed: int

    def inputs(self, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """x [1, M, D + 1, R] and presence [1, M, R] of pool rows."""
        columns = torch.from_numpy(self.prepared.columns(rows))
        present = self.prepared.present
        return self.prepared.x[:, :, columns][None], None if present is None else present[:, columns][None]


class Model:
    """A classifier trained on labels, and the task model that describes samples to the policy.

    Args:
        data: rows, those of the labels among them.
        labels: of at least two classes; what `data` was prepared for, or earlier ones.
        classifier: to be copied and trained in place of the task model's multimodal head; None for the latter.
    """

    def __init__(self, data: Data, labels: Labels, classifier: Classifier | None = None):
        self.data, self.labels = data, labels
        self.measured = len(labels.held_rows) > 0
        # Simulation wants validation rows; what it says about stand-ins is not used.
        held = np.sort(labels.held_rows) if self.measured else np.sort(labels.rows)
        known = torch.full((len(data.prepared.rows),), -1, dtype=torch.int64)
        known[data.prepared.columns(labels.rows)] = torch.from_numpy(labels.classes)
        known[data.prepared.columns(labels.held_rows)] = torch.from_numpy(labels.held_classes)
        protocol = ProtocolConfig(initial_labels=max(len(labels.rows), 1))
        simulation = Simulation(replace(data.prepared, labels=known), data.config, protocol)
        roles = Roles(np.sort(labels.rows), held, held)
        round_ = simulation.reset([Start(data.seed, roles, np.arange(len(labels.rows)))])
        self.round: Round = round_ if self.measured else round_.with_equal_weights()
        self.modality_accuracy = simulation.measure().modality_accuracy[0].tolist() if self.measured else None
        self.classifier = None
        if classifier is not None:
            self.classifier = copy.deepcopy(classifier)
            names = np.array(labels.names)[labels.classes]
            self.classifier.fit(_matrix(data.pool, labels.rows), names)
            self._columns = _class_columns(self.classifier, names, labels.names)

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Of the classes, [R, C]."""
        parts = [self._block(rows[low : low + BLOCK]) for low in range(0, len(rows), BLOCK)]
        return np.concatenate(parts) if parts else np.empty((0, self.data.prepared.num_classes))

    def _block(self, rows: np.ndarray) -> np.ndarray:
        if self.classifier is None:
            return self.round.model.predict(*self.data.inputs(rows)).probabilities[0].T.double().numpy()
        own = np.asarray(self.classifier.predict_proba(_matrix(self.data.pool, rows)), np.float64)
        if own.shape != (len(rows), len(self._columns)) or not np.isfinite(own).all():
            raise ConfigError(
                f"The classifier's predict_proba gave {list(own.shape)} for {len(rows)} samples of "
                f"{len(self._columns)} classes; it must give finite numbers {[len(rows), len(self._columns)]}."
            )
        p = np.zeros((len(rows), self.data.prepared.num_classes))
        p[:, self._columns] = own
        return p

    def round_for(self, available: np.ndarray, used: int, budget: int, batch_size: int) -> tuple[Round, np.ndarray]:
        """The round in which a batch is chosen, and the pool rows [P] that its positions stand for.

        Args:
            available: rows that may be picked, ascending.
            used, budget: labels so far, and planned: how far the labelling is.
        """
        rows = np.union1d(available, self.labels.rows)
        x, present = self.data.inputs(rows)
        rounds = max(math.ceil(budget / batch_size), 2)
        labelled = np.sort(self.labels.rows)
        round_ = replace(
            self.round,
            index=min(used // batch_size, rounds - 1),
            rounds=rounds,
            x=x,
            present=present,
            density=self.data.prepared.density[torch.from_numpy(self.data.prepared.columns(rows))][None],
            available=torch.from_numpy(np.isin(rows, available))[None],
            labelled=torch.from_numpy(np.searchsorted(rows, labelled))[None],
        )
        if self.classifier is not None:
            logits = torch.from_numpy(np.log(self.probabilities(rows).clip(1e-12)).T.astype(np.float32))[None]
            fields = {name: getattr(round_, name) for name in Round.__dataclass_fields__}
            round_ = ClassifierRound(**fields, logits=logits)
        return round_, rows


@dataclass(frozen=True)
class ClassifierRound(Round):
    """A round whose class probabilities are another classifier's; embeddings and evidence are the task model's."""

    logits: Tensor | None = None  # [1, C, P]

    def outputs_at(self, positions: Tensor):
        """Outputs for positions [1, K] only."""
        return replace(super().outputs_at(positions), logits=rows_at(self.logits, positions))


def _matrix(pool: Pool, rows: np.ndarray) -> np.ndarray:
    """Raw features of all modalities side by side, float32 [R, sum of D_m], zeros where absent."""
    return np.concatenate([pool.take(modality, rows) for modality in pool.modalities], 1).astype(np.float32)


def _class_columns(classifier: Classifier, told: np.ndarray, names: Sequence[str]) -> list[int]:
    """Which class each column of `predict_proba` stands for."""
    own = [str(name) for name in getattr(classifier, "classes_", np.unique(told))]
    unknown = [name for name in own if name not in names]
    if unknown:
        raise ConfigError(f"The classifier's classes_ names {unknown[0]!r}, which is not among {', '.join(names)}.")
    return [names.index(name) for name in own]
