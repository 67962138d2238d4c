"""What a task model is: this page is what somebody reads who brings one of their own.

A `TaskTrainer` trains E classifiers at a time, for episodes that begin at S starts; each start is shared by E / S
copies, which follow one another. What it gives is a `TaskModel`, which answers for rows and says nothing of how it was
trained. A `TaskModelConfig` makes the trainer of a pool. `envs.models.frozen` is one kind; whether another one keeps to
what stands here, `envs.contract.check_task_model` says.

Tensors keep the rows on the last axis: element-wise work then runs over contiguous rows whatever the number of classes.
E episodes, S starts, M modalities, C classes, H hidden units of a modality, P rows of an episode's pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from envs.models.evidence import softplus_and_slope
from envs.pools import Pool
from envs.pools.partition import Start

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True)
class Outputs:
    """What E task models say about R rows. Where a modality is absent, its hidden features are zero."""

    hidden: Tensor  # [E, M, H, R] encoder outputs, the last unit constant
    modality_logits: Tensor  # [E, M, C, R] of each modality's own head; whatever they are where it is absent
    logits: Tensor  # [E, C, R] of the multimodal head
    present: Tensor | None  # bool [E, M, R]; None: every row has every modality

    @cached_property
    def evidence(self) -> Tensor:
        """alpha_m - 1 = softplus(logits of head m), [E, M, C, R]; zero where the modality is absent."""
        evidence, _ = softplus_and_slope(self.modality_logits)
        return evidence if self.present is None else evidence * self.present[:, :, None]

    @property
    def probabilities(self) -> Tensor:
        """Multimodal softmax, [E, C, R]."""
        return torch.softmax(self.logits, dim=1)

    def embedding(self) -> Tensor:
        """Input of the multimodal head's last layer, [E, M H, R]."""
        return self.hidden.flatten(1, 2)

    def fisher_embedding(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """v with v v^T the binary Fisher information of a row, [E, M H, R].

        v = sqrt(p (1 - p)) z, p the largest probability and z the embedding (Huseljic et al. 2024, arXiv 2404.08981).
        """
        top = self.probabilities.amax(1, keepdim=True).to(dtype)
        return (top * (1.0 - top)).clamp_min_(0.0).sqrt_() * self.embedding()


@dataclass(frozen=True)
class RowResults:
    """How E task models did on R rows whose labels are known; [E, R] each unless said otherwise."""

    correct: Tensor  # 1 where the multimodal head is right, else 0
    confidence: Tensor  # the multimodal head's largest probability
    likelihood: Tensor  # its probability of the true class
    modality_correct: Tensor  # bool [E, M, R], whether each modality's own head is right; False where it is absent
    present: Tensor | None  # bool [S, M, R]; None: every row has every modality

    def rows(self, at: slice) -> RowResults:
        """The results on some of the rows."""
        present = None if self.present is None else self.present[..., at]
        return RowResults(
            self.correct[:, at],
            self.confidence[:, at],
            self.likelihood[:, at],
            self.modality_correct[..., at],
            present,
        )

    def modality_accuracy(self) -> Tensor:
        """Top-1 of each modality's own head over the rows that have the modality, [E, M]."""
        right = self.modality_correct.sum(2)
        if self.present is None:
            return right / self.modality_correct.shape[2]
        return right / per_episode(self.present.sum(2).clamp_min(1), len(right))


class TaskModel(Protocol):
    """E trained classifiers, and the rows that they answer for."""

    @property
    def head(self) -> Tensor:
        """The linear multimodal head over `Outputs.embedding()`, [E, C, M H]: logits = head @ embedding."""

    @property
    def loss_slope(self) -> Tensor:
        """Change of the training loss per step, [E]."""

    @property
    def gradient_norm(self) -> Tensor:
        """Norm of the training loss's gradient at the last step, [E]."""

    def outputs(self, positions: Tensor | None = None) -> Outputs:
        """Outputs for pool positions [E, K]; without any for the whole pool."""

    def outputs_of(self, rows: np.ndarray) -> Outputs:
        """Outputs of all E models for the same rows of the data set, [R], of those that the trainer was made for."""

    def outputs_held_out(self, at: slice) -> Outputs:
        """Outputs for some of each start's held-out rows: its validation rows, then its holdout rows."""

    def held_out(self) -> RowResults:
        """Right or wrong on each start's held-out rows, validation rows first."""

    def inputs(self) -> Tensor:
        """Features of the pool that no training changed, [S, D, P], for strategies that cluster the pool."""

    def refitted(self, heads: str = "evidential", dropout: float = 0.0, first: int | None = None) -> TaskModel:
        """The same models trained otherwise, on the same labels or on the first of them.

        Args:
            heads: loss of the modality heads, "evidential" or "cross_entropy".
            dropout: probability with which a step drops each encoder output.
            first: of how many labels, from the first in the order in which they were bought; None: of all.
        """


class TaskTrainer(Protocol):
    """Trains task models for some starts. Can be pickled until `begin`."""

    @property
    def device(self) -> torch.device:
        """Where tensors lie."""

    @property
    def density(self) -> Tensor:
        """How many pool rows lie around each one (mean cosine similarity to its neighbours), [S, P]."""

    @property
    def labels(self) -> Tensor:
        """Labels of the pool rows, int64 [S, P]."""

    @property
    def held_out_labels(self) -> Tensor:
        """Labels of the held-out rows, validation rows first, int64 [S, R]."""

    def begin(self, starts: Sequence[Start], copies: int = 1) -> TaskModel:
        """Train on the initial labels of S starts, whose pools are of one size; E = S * copies models."""

    def fit(self, labelled: Tensor) -> TaskModel:
        """Train from scratch on pool positions [E, n]; what a model becomes depends on its own labels alone."""

    def inputs(self, rows: np.ndarray) -> Tensor:
        """Features of rows of the data set that no training changes, [D, R]."""

    def relabelled(self, rows: np.ndarray, labels: np.ndarray, num_classes: int) -> Self:
        """The same trainer for other labels, before `begin`: of these rows of the data set; all others have none.

        Args:
            labels: int64, of `rows`.
            num_classes: C.
        """

    def reference(self, starts: Sequence[int]) -> TaskModel:
        """One model for each of these starts (numbers, in the order of `begin`), trained on all labels of its pool."""

    def to(self, device: str | torch.device) -> Self:
        """The same trainer elsewhere, before `begin`."""


class TaskModelConfig(Protocol):
    """Settings of a kind of task model: a frozen dataclass, whose fields decide results and are part of their keys."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def trainer(
        self, pool: Pool, rows: np.ndarray, others: np.ndarray | None = None, device: str | torch.device = "cpu"
    ) -> TaskTrainer:
        """A trainer for a pool.

        Args:
            rows: those that may be looked at, labels aside, to find scales, components and densities.
            others: further rows that models answer for: the test rows of a comparison.
        """


def per_episode(x: Tensor, episodes: int) -> Tensor:
    """Repeat [S, ...] to [E, ...]: the copies of a start follow one another."""
    return x if x.shape[0] == episodes else x.repeat_interleave(episodes // x.shape[0], 0)


def rows_at(x: Tensor, positions: Tensor) -> Tensor:
    """x [S, ..., P] at positions [E, K], [E, ..., K]; the copies of a start read it in place."""
    starts, copies = x.shape[0], len(positions) // x.shape[0]
    shape = (starts, copies, *x.shape[1:-1], positions.shape[1])
    index = positions.view(starts, copies, *[1] * (x.dim() - 2), -1).expand(shape)
    # gather, not take_along_dim: that one writes the expanded index out, which takes four times as long.
    return x[:, None].expand(starts, copies, *x.shape[1:]).gather(-1, index).flatten(0, 1)
