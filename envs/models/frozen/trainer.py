"""Training frozen-feature task models for the starts of episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Self

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from envs.fields import Section
from envs.models.base import per_episode
from envs.models.frozen.fitting import Fitted, Parameters, fit, initial_parameters
from envs.models.frozen.model import FrozenModel, StartRows
from envs.models.frozen.preparation import PreparedPool, prepare
from envs.pools import Pool
from envs.pools.partition import Start


@dataclass(frozen=True)
class FrozenConfig(Section, prefix="model."):
    """How the frozen-feature task model is trained in each round."""

    hidden: Annotated[int, Ge(2)] = 24  # units of each modality's encoder, a constant one among them
    steps: Annotated[int, Ge(1)] = 40  # AdamW steps per round, from scratch
    learning_rate: Annotated[float, Gt(0)] = 0.02
    weight_decay: Annotated[float, Ge(0)] = 0.01
    projection_dim: Annotated[int, Ge(1)] = 32  # principal components kept per modality
    minibatch: Annotated[int, Ge(1)] = 512  # labelled rows per step once there are more than this

    def trainer(
        self, pool: Pool, rows: np.ndarray, others: np.ndarray | None = None, device: str | torch.device = "cpu"
    ) -> FrozenTrainer:
        """A trainer on the features of some rows of a pool, prepared on `rows`; `others` are only mapped."""
        return FrozenTrainer(prepare(pool, rows, others, self.projection_dim, device), self)


@dataclass
class FrozenTrainer:
    """A `TaskTrainer` on prepared features.

    Args:
        data: prepared rows, all that starts name among them.
        config: settings.
    """

    data: PreparedPool
    config: FrozenConfig
    rows: StartRows = field(init=False)  # of the starts that `begin` was given, and so is what follows
    initial: Parameters = field(init=False)  # of S models, where all training of theirs begins
    copies: int = field(init=False)

    @property
    def device(self) -> torch.device:
        """Where tensors lie."""
        return self.data.x.device

    @property
    def density(self) -> Tensor:
        """Mean cosine similarity of the pool rows to their nearest neighbours, [S, P]."""
        return self.rows.density

    @property
    def labels(self) -> Tensor:
        """Labels of the pool rows, int64 [S, P]."""
        return self.rows.labels

    @property
    def held_out_labels(self) -> Tensor:
        """Labels of the held-out rows, validation rows first, int64 [S, R]."""
        return self.rows.held_labels

    def begin(self, starts: Sequence[Start], copies: int = 1) -> FrozenModel:
        """Train on the initial labels of S starts, whose pools are of one size; E = S * copies models."""
        held = [np.concatenate([s.roles.validation, s.roles.holdout]) for s in starts]
        self.rows = StartRows.gather(self.data, [s.seed for s in starts], [s.roles.pool for s in starts], held)
        self.copies = copies
        modalities, width = self.rows.x.shape[1:3]
        initial = initial_parameters(self.rows.seeds, modalities, width - 1, self.data.num_classes, self.config.hidden)
        self.initial = initial.map(lambda p: p.to(self.device))
        labelled = torch.from_numpy(np.stack([s.initial for s in starts])).to(self.device)
        # The copies still agree: one model per start serves them all.
        fitted = fit(self.initial, self.rows.labelled(labelled), self.config, self.rows.seeds)
        shared = Fitted(
            fitted.parameters.map(self._for_copies),
            self._for_copies(fitted.loss_slope),
            self._for_copies(fitted.gradient_norm),
        )
        return self._model(self.initial.map(self._for_copies), self._for_copies(labelled), shared)

    def fit(self, labelled: Tensor) -> FrozenModel:
        """Train from scratch on pool positions [E, n]."""
        seeds = [seed for seed in self.rows.seeds for _ in range(self.copies)]
        initial = self.initial.map(self._for_copies)
        return self._model(initial, labelled, fit(initial, self.rows.labelled(labelled), self.config, seeds))

    def inputs(self, rows: np.ndarray) -> Tensor:
        """Prepared features of rows of the data set, all modalities side by side, [M D, R]."""
        return self.data.inputs(rows)

    def relabelled(self, rows: np.ndarray, labels: np.ndarray, num_classes: int) -> Self:
        """The same trainer for other labels, before `begin`: of these rows of the data set; all others have none."""
        return type(self)(self.data.relabelled(rows, labels, num_classes), self.config)

    def reference(self, starts: Sequence[int]) -> FrozenModel:
        """One model for each of these starts (numbers, in the order of `begin`), trained on all labels of its pool."""
        rows = self.rows.starts(starts)
        initial = self.initial.map(lambda p: p[list(starts)])
        everything = torch.arange(rows.labels.shape[1], device=self.device).expand(len(starts), -1)
        fitted = fit(initial, rows.labelled(everything), self.config, rows.seeds)
        return FrozenModel(rows, initial, everything, fitted, self.config)

    def to(self, device: str | torch.device) -> Self:
        """The same trainer elsewhere, before `begin`."""
        return type(self)(self.data.to(device), self.config)

    def _model(self, initial: Parameters, labelled: Tensor, fitted: Fitted) -> FrozenModel:
        return FrozenModel(self.rows, initial, labelled, fitted, self.config)

    def _for_copies(self, x: Tensor) -> Tensor:
        return per_episode(x, len(self.rows.seeds) * self.copies)
