"""The frozen-feature task model: E evidential multimodal classifiers on prepared features.

Each modality m has an encoder z_m = relu(W_m x_m) and an evidential head alpha_m = 1 + softplus(A_m z_m); the
multimodal head is a softmax over B z, z the concatenation of the z_m. Losses: the type II maximum likelihood
of the Dirichlet for the modality heads (Sensoy et al. 2018, eq. 3), cross-entropy for the multimodal head.
A constant input and a constant hidden unit carry the biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.models.base import Outputs, RowResults, per_episode, rows_at
from envs.models.frozen.fitting import Fitted, LabelledRows, Parameters, Schedule, fit
from envs.models.frozen.preparation import PreparedPool

CPU_FLOATS = 2**18  # of a block's outputs on a processor: they should stay in its cache
GPU_FLOATS = 2**28  # elsewhere: 1 GB
LEAST_ROWS = 64  # of a block


@dataclass(frozen=True)
class StartRows:
    """Prepared rows of S starts, whose pools are of one size, and so are their held-out rows."""

    data: PreparedPool  # of which they are columns
    seeds: tuple[int, ...]  # [S]
    x: Tensor  # [S, M, D + 1, P] the pool
    present: Tensor | None  # bool [S, M, P]; None: nothing is missing
    labels: Tensor  # int64 [S, P]
    density: Tensor  # [S, P]
    held_x: Tensor  # [S, M, D + 1, R] validation rows, then holdout rows
    held_present: Tensor | None  # bool [S, M, R]
    held_labels: Tensor  # int64 [S, R]

    @staticmethod
    def gather(data: PreparedPool, seeds: Sequence[int], pools: list[np.ndarray], held: list[np.ndarray]) -> StartRows:
        """Rows of the data set by start: those that may be picked, and those that measure."""
        pool_columns, held_columns = ([_columns(data, rows) for rows in many] for many in (pools, held))
        x, present, labels = _take(data, pool_columns)
        density = torch.stack([data.density[c] for c in pool_columns])
        return StartRows(data, tuple(seeds), x, present, labels, density, *_take(data, held_columns))

    def starts(self, at: Sequence[int]) -> StartRows:
        """The rows of some starts."""
        seeds, at = tuple(self.seeds[i] for i in at), list(at)
        tensors: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[at]
            for name in ("x", "present", "labels", "density", "held_x", "held_present", "held_labels")
        }
        return replace(self, seeds=seeds, **tensors)

    def labelled(self, positions: Tensor) -> LabelledRows:
        """Pool positions [E, n] as rows to learn from."""
        present = None if self.present is None else rows_at(self.present, positions)
        return LabelledRows(rows_at(self.x, positions), rows_at(self.labels, positions), present)


def _columns(data: PreparedPool, rows: np.ndarray) -> Tensor:
    return torch.from_numpy(data.columns(rows)).to(data.x.device)


def _take(data: PreparedPool, columns: list[Tensor]) -> tuple[Tensor, Tensor | None, Tensor]:
    x = torch.stack([data.x[:, :, c] for c in columns])
    present = None if data.present is None else torch.stack([data.present[:, c] for c in columns])
    return x, present, torch.stack([data.labels[c] for c in columns])


@dataclass(frozen=True)
class FrozenModel:
    """A `TaskModel` on prepared features.

    Args:
        rows: of S starts, each shared by E / S copies.
        initial: of E models, before any training.
        labelled: pool positions [E, n] that they learned from.
        fitted: the E trained models.
        schedule: how they were trained.
    """

    rows: StartRows
    initial: Parameters
    labelled: Tensor
    fitted: Fitted
    schedule: Schedule

    @property
    def parameters(self) -> Parameters:
        """Encoders and heads of the E models."""
        return self.fitted.parameters

    @property
    def head(self) -> Tensor:
        """The linear multimodal head, [E, C, M H]."""
        return self.fitted.parameters.multimodal_head

    @property
    def loss_slope(self) -> Tensor:
        """Change of the training loss per step, [E]."""
        return self.fitted.loss_slope

    @property
    def gradient_norm(self) -> Tensor:
        """Norm of the training loss's gradient at the last step, [E]."""
        return self.fitted.gradient_norm

    def outputs(self, positions: Tensor | None = None) -> Outputs:
        """Outputs for pool positions [E, K]; without any for the whole pool."""
        rows = self.rows
        if positions is None:
            return predict(self.parameters, rows.x, rows.present)
        present = None if rows.present is None else rows_at(rows.present, positions)
        return predict(self.parameters, rows_at(rows.x, positions), present)

    def outputs_of(self, rows: np.ndarray) -> Outputs:
        """Outputs of all E models for the same rows of the data set, [R]."""
        x, present, _ = _take(self.rows.data, [_columns(self.rows.data, rows)])
        return predict(self.parameters, x, present)

    def outputs_held_out(self, at: slice) -> Outputs:
        """Outputs for some of each start's held-out rows."""
        present = None if self.rows.held_present is None else self.rows.held_present[..., at]
        return predict(self.parameters, self.rows.held_x[..., at], present)

    def held_out(self) -> RowResults:
        """Right or wrong on each start's held-out rows, validation rows first."""
        return judge(self.parameters, self.rows.held_x, self.rows.held_present, self.rows.held_labels)

    def inputs(self) -> Tensor:
        """The prepared features of the pool, all modalities side by side, [S, M D, P]."""
        return self.rows.x[:, :, :-1].flatten(1, 2)

    def refitted(self, heads: str = "evidential", dropout: float = 0.0, first: int | None = None) -> FrozenModel:
        """The same models trained otherwise (see `envs.models.frozen.fitting.fit`), on the first or all labels."""
        labelled = self.labelled[:, :first]
        copies = len(self.labelled) // len(self.rows.seeds)
        seeds = [seed for seed in self.rows.seeds for _ in range(copies)]
        fitted = fit(self.initial, self.rows.labelled(labelled), self.schedule, seeds, heads, dropout)
        return replace(self, labelled=labelled, fitted=fitted)


def predict(parameters: Parameters, x: Tensor, present: Tensor | None = None) -> Outputs:
    """Outputs of E models for rows x [E or S, M, D + 1, R]; S starts are each shared by E / S copies.

    Args:
        present: bool [E or S, M, R], or None where nothing is missing.
    """
    episodes = parameters.encoder.shape[0]
    hidden = torch.matmul(parameters.encoder, per_episode(x, episodes)).relu_()
    if present is not None:
        present = per_episode(present, episodes)
        hidden = hidden * present[:, :, None]
    modality_logits = torch.matmul(parameters.modality_head, hidden)
    logits = torch.bmm(parameters.multimodal_head, hidden.flatten(1, 2))
    return Outputs(hidden, modality_logits, logits, present)


def judge(p: Parameters, x: Tensor, present: Tensor | None, labels: Tensor) -> RowResults:
    """Let E models answer for the rows of S starts, block by block, so that of a row only its results stay in memory.

    Args:
        x: [S, M, D + 1, R].
        present: bool [S, M, R], or None where nothing is missing.
        labels: int64 [S, R].
    """
    (starts, modalities, _, rows), (episodes, _, hidden, _) = x.shape, p.encoder.shape
    copies, classes = episodes // starts, p.modality_head.shape[2]
    floats = copies * (modalities * (2 * hidden + classes) + 2 * classes)  # of a row
    size = max(LEAST_ROWS, (CPU_FLOATS if x.device.type == "cpu" else GPU_FLOATS) // floats)
    correct, confidence, likelihood = (x.new_empty(episodes, rows) for _ in range(3))
    modality_correct = torch.empty(episodes, modalities, rows, dtype=torch.bool, device=x.device)
    for s in range(starts):
        mine = slice(s * copies, (s + 1) * copies)
        # The copies' encoders side by side: one product for each modality, and no copy of x for every episode.
        encoders = p.encoder[mine].transpose(0, 1).reshape(modalities, copies * hidden, -1)
        modality_heads, multimodal_heads = p.modality_head[mine].flatten(0, 1), p.multimodal_head[mine]
        for low in range(0, rows, size):
            at = slice(low, low + size)
            z = torch.bmm(encoders, x[s, :, :, at]).relu_().view(modalities, copies, hidden, -1)
            if present is not None:
                z.mul_(present[s, :, None, None, at])
            z = z.transpose(0, 1).reshape(copies, modalities * hidden, -1)
            y = labels[s, at].expand(copies, 1, -1)
            q = torch.softmax(torch.bmm(multimodal_heads, z), 1)
            likelihood[mine, at], confidence[mine, at] = q.gather(1, y)[:, 0], q.amax(1)
            # Comparing with the largest, not argmax: over a leading axis it is many times faster; ties have no weight.
            correct[mine, at] = (likelihood[mine, at] >= confidence[mine, at]).float()
            heads = torch.bmm(modality_heads, z.view(copies * modalities, hidden, -1))
            heads = heads.view(copies, modalities, classes, -1)
            own = heads.gather(2, y[:, None].expand(-1, modalities, -1, -1))[:, :, 0]
            modality_correct[mine, :, at] = own >= heads.amax(2)
    if present is not None:
        modality_correct &= per_episode(present, episodes)
    return RowResults(correct, confidence, likelihood, modality_correct, present)
