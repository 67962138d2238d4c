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
from envs.models.accuracy import validate
from envs.models.base import Outputs, RowResults, TaskModel, TaskTrainer, rows_at
from envs.models.contribution import contribution_weights
from envs.models.frozen.trainer import FrozenConfig
from envs.pools import Pool
from envs.pools.partition import Roles, Start
from envs.randomness import stream
from envs.round import Round
from envs.simulation import ProtocolConfig
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
    """The labels of a project, as rows of the pool and classes; training rows in the order in which labels arrived."""

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
    decided = [(project.row(sample), index[v.label]) for sample, v in verdicts.items() if v.label is not None]
    pairs = np.array(decided, np.int64).reshape(-1, 2)
    held = project.held_out[pairs[:, 0]]
    closed = [project.row(sample) for sample, v in verdicts.items() if v.label is None]
    rows, classes = pairs[~held].T.copy()
    held_rows, held_classes = pairs[held].T.copy()
    return Labels(rows, classes, held_rows, held_classes, np.array(closed, np.int64), tuple(state.classes))


def prepare_rows(
    project: Project, labels: Labels, turn: int, batch_size: int = 0, others: np.ndarray | None = None
) -> Data:
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
        working = stream(seed, "labelling: working rows", turn).choice(training, count, replace=False)
    working = np.union1d(working, labels.rows)
    shuffled = stream(seed, "labelling: stop set").permutation(training)
    stop_set = np.sort(shuffled[:STOP_SET])
    further = np.union1d(stop_set, labels.held_rows)
    if others is not None:
        further = np.union1d(further, others)
    further = np.setdiff1d(further, working)
    trainer = FrozenConfig().trainer(pool, working, further)
    return Data(pool, trainer, max(len(labels.names), 2), working, stop_set, seed)


@dataclass(frozen=True)
class Data:
    """Scaled rows of a project, and who trains on them."""

    pool: Pool
    trainer: TaskTrainer
    num_classes: int  # columns of probabilities: the classes, and at least two
    working: np.ndarray  # int64, ascending: training rows at hand
    stop_set: np.ndarray  # int64, ascending
    seed: int

    def labelled(self, labels: Labels) -> TaskTrainer:
        """The trainer that knows these labels and no others."""
        rows = np.concatenate([labels.rows, labels.held_rows])
        return self.trainer.relabelled(rows, np.concatenate([labels.classes, labels.held_classes]), self.num_classes)


class Model:
    """A classifier trained on labels, and the task model that describes samples to the policy.

    Args:
        data: rows, those of the labels among them.
        labels: of at least two classes; what `data` was prepared for, or earlier ones.
        classifier: to be copied and trained in place of the task model's multimodal head; None for the latter.
        available: rows that a batch may be picked from, ascending; none where none is to be picked.
    """

    def __init__(
        self,
        data: Data,
        labels: Labels,
        classifier: Classifier | None = None,
        available: np.ndarray | None = None,
    ):
        self.data, self.labels = data, labels
        self.available = np.empty(0, np.int64) if available is None else available
        self.measured = len(labels.held_rows) > 0
        # Where nothing measures yet, the training rows stand in; what is measured on them is not used.
        held = np.sort(labels.held_rows if self.measured else labels.rows)
        self.rows = np.union1d(self.available, labels.rows)  # the pool of the round, [P]
        self.labelled = np.searchsorted(self.rows, np.sort(labels.rows))  # positions among them
        self.trainer = data.labelled(labels)
        self.model = self.trainer.begin([Start(data.seed, Roles(self.rows, held, held[:0]), self.labelled)])
        results = self.model.held_out()
        self.validation = validate(results)
        protocol = ProtocolConfig()
        self.weights = contribution_weights(
            self.validation.delta, protocol.amcb_temperature, protocol.amcb_floor
        )  # [1, M]
        self.modality_accuracy = results.modality_accuracy()[0].tolist() if self.measured else None
        self.classifier = None
        if classifier is not None:
            names = np.array(labels.names)[labels.classes]
            self.classifier, by_number = _fitted(classifier, _matrix(data.pool, labels.rows), names)
            self._columns = _class_columns(self.classifier, by_number, names, labels.names)

    def probabilities(self, rows: np.ndarray) -> np.ndarray:
        """Probabilities of the classes, [R, C]."""
        parts = [self._block(rows[low : low + BLOCK]) for low in range(0, len(rows), BLOCK)]
        return np.concatenate(parts) if parts else np.empty((0, self.data.num_classes))

    def _block(self, rows: np.ndarray) -> np.ndarray:
        if self.classifier is None:
            return self.model.outputs_of(rows).probabilities[0].T.double().numpy()
        own = np.asarray(self.classifier.predict_proba(_matrix(self.data.pool, rows)), np.float64)
        if own.shape != (len(rows), len(self._columns)) or not np.isfinite(own).all():
            raise ConfigError(
                f"The classifier's predict_proba gave {list(own.shape)} for {len(rows)} samples of "
                f"{len(self._columns)} classes; it must give finite numbers {[len(rows), len(self._columns)]}."
            )
        p = np.zeros((len(rows), self.data.num_classes))
        p[:, self._columns] = own
        return p

    def round(self, used: int, budget: int, batch_size: int) -> Round:
        """The round in which a batch is chosen; its positions count `rows`.

        Args:
            used, budget: labels so far, and planned: how far the labelling is.
        """
        rounds = max(math.ceil(budget / batch_size), 2)
        model: TaskModel = self.model
        if self.classifier is not None:
            logits = torch.from_numpy(np.log(self.probabilities(self.rows).clip(1e-12)).T.astype(np.float32))[None]
            model = ClassifierModel(self.model, logits)
        labelled = torch.from_numpy(self.labelled)[None]
        round_ = Round(
            index=min(used // batch_size, rounds - 1),
            rounds=rounds,
            seeds=(self.data.seed,),
            model=model,
            density=self.trainer.density,
            available=torch.from_numpy(np.isin(self.rows, self.available))[None],
            labelled=labelled,
            labels=rows_at(self.trainer.labels, labelled),
            weights=self.weights,
            validation=self.validation,
        )
        return round_ if self.measured else round_.with_equal_weights()


@dataclass(frozen=True)
class ClassifierModel:
    """A task model whose class probabilities are another classifier's; embeddings and evidence are its own."""

    model: TaskModel
    logits: Tensor  # [1, C, P] of the classifier, for the pool

    @property
    def head(self) -> Tensor:
        """The task model's linear multimodal head, [1, C, M H]."""
        return self.model.head

    @property
    def loss_slope(self) -> Tensor:
        """Change of the task model's training loss per step, [1]."""
        return self.model.loss_slope

    @property
    def gradient_norm(self) -> Tensor:
        """Norm of the task model's gradient at the last step, [1]."""
        return self.model.gradient_norm

    def outputs(self, positions: Tensor | None = None) -> Outputs:
        """Outputs for pool positions [1, K], with the classifier's logits."""
        logits = self.logits if positions is None else rows_at(self.logits, positions)
        return replace(self.model.outputs(positions), logits=logits)

    def outputs_of(self, rows: np.ndarray) -> Outputs:
        """Outputs of the task model alone."""
        return self.model.outputs_of(rows)

    def outputs_held_out(self, at: slice) -> Outputs:
        """Outputs of the task model alone."""
        return self.model.outputs_held_out(at)

    def held_out(self) -> RowResults:
        """The task model's results on the held-out rows."""
        return self.model.held_out()

    def inputs(self) -> Tensor:
        """The task model's inputs for the pool, [1, D, P]."""
        return self.model.inputs()

    def refitted(self, heads: str = "evidential", dropout: float = 0.0, first: int | None = None) -> TaskModel:
        """The task model trained otherwise: another classifier has no heads to train."""
        return self.model.refitted(heads, dropout, first)


def _matrix(pool: Pool, rows: np.ndarray) -> np.ndarray:
    """Raw features of all modalities side by side, float32 [R, sum of D_m], zeros where absent."""
    return np.concatenate([pool.take(modality, rows) for modality in pool.modalities], 1).astype(np.float32)


def _fitted(classifier: Classifier, x: np.ndarray, names: np.ndarray) -> tuple[Classifier, np.ndarray | None]:
    """A copy that learned the classes by name, str [n], or by their numbers 0, 1, ... in alphabetical order where it
    refuses names; and which name each number stands for.

    Raises:
        ConfigError: where it takes neither.
    """
    fitted = copy.deepcopy(classifier)
    try:
        fitted.fit(x, names)
        return fitted, None
    except (ValueError, TypeError) as error:
        problem = error
    by_number, codes = np.unique(names, return_inverse=True)
    fitted = copy.deepcopy(classifier)
    try:
        fitted.fit(x, codes.astype(np.int64))
    except (ValueError, TypeError):
        raise ConfigError(
            f"The classifier's fit failed on {len(names)} labels ({type(problem).__name__}: {problem})."
        ) from problem
    return fitted, by_number


def _class_columns(
    classifier: Classifier, by_number: np.ndarray | None, told: np.ndarray, names: Sequence[str]
) -> list[int]:
    """Which class each column of `predict_proba` stands for."""
    own = list(getattr(classifier, "classes_", np.unique(told) if by_number is None else range(len(by_number))))
    if by_number is not None:
        numbers = {i: name for i, name in enumerate(by_number.tolist())}
        own = [numbers.get(number, number) for number in own]
    unknown = [name for name in own if str(name) not in names]
    if unknown:
        raise ConfigError(f"The classifier's classes_ names {unknown[0]!r}, which is not among {', '.join(names)}.")
    return [names.index(str(name)) for name in own]
