"""The labelling simulation: E episodes of active learning in lockstep, without any reinforcement learning.

An episode is a start (roles of the rows, initial labels, initial parameters) and the batches that somebody
picks. `copies` episodes share each start, so whatever they differ by is the picks' doing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from envs.errors import ConfigError
from envs.fields import Section
from envs.models.accuracy import mark, validate
from envs.models.contribution import accuracy_contributions, contribution_weights
from envs.models.evidence import difficulty, fuse_evidence
from envs.models.frozen.model import (
    Parameters,
    TaskModel,
    TaskModelConfig,
    fit,
    initial_parameters,
    per_episode,
    rows_at,
)
from envs.models.frozen.preparation import PreparedPool
from envs.pools.partition import Roles
from envs.round import Round


@dataclass(frozen=True)
class ProtocolConfig(Section, prefix="protocol."):
    """How an episode runs."""

    initial_labels: Annotated[int, Ge(1)] = 20  # labelled at random before the first round
    batch_size: Annotated[int, Ge(1)] = 10  # b, labels bought per round
    rounds: Annotated[int, Ge(1)] = 10  # T
    amcb_temperature: Annotated[float, Gt(0)] = 0.1  # tau of the modality weights
    amcb_floor: Annotated[float, Ge(0), Lt(1)] = 0.05  # epsilon, the least weight of a modality

    @property
    def budget(self) -> int:
        """Labels at the end of an episode."""
        return self.initial_labels + self.batch_size * self.rounds

    def check_budget(self, pool_rows: int, where: str) -> None:
        """Raise ConfigError where the pool cannot supply the budget."""
        if self.budget > pool_rows:
            raise ConfigError(
                f"The budget of {self.budget} labels ({self.initial_labels} + {self.rounds} rounds x "
                f"{self.batch_size}) is above the {pool_rows} pool rows of {where}; lower protocol.rounds, "
                f"protocol.batch_size or protocol.initial_labels."
            )


@dataclass(frozen=True)
class Start:
    """What the copies of an episode share."""

    seed: int
    roles: Roles
    initial: np.ndarray  # int64 [n] positions within roles.pool, labelled from the beginning

    @property
    def digest(self) -> str:
        """Hash of everything that decides the start; equal digests make a fair pair."""
        h = hashlib.sha256(str(self.seed).encode())
        for part in (self.roles.pool, self.roles.validation, self.roles.holdout, self.initial):
            h.update(np.ascontiguousarray(part, np.int64).tobytes())
        return h.hexdigest()[:16]


def draw_start(roles: Roles, seed: int, protocol: ProtocolConfig) -> Start:
    """Draw the initial labels at random, as somebody who knows no label must."""
    rng = np.random.default_rng([seed, 0x51A7])
    return Start(seed, roles, np.sort(rng.choice(len(roles.pool), protocol.initial_labels, replace=False)))


@dataclass(frozen=True)
class Measurements:
    """How good the E task models are on the held-out rows; [E] each unless said otherwise."""

    accuracy: Tensor
    soft_accuracy: Tensor  # mean probability of the true class
    modality_accuracy: Tensor  # [E, M] of each modality's own head
    hard_accuracy: Tensor  # on the hardest third of the held-out rows


@dataclass
class Simulation:
    """E = len(starts) * copies episodes.

    Args:
        data: prepared rows, all the roles' rows among them.
        model: task model settings.
        protocol: episode settings.
    """

    data: PreparedPool
    model: TaskModelConfig
    protocol: ProtocolConfig
    round: Round = field(init=False)
    initial: Parameters = field(init=False)  # every round's training begins here
    starts: tuple[Start, ...] = field(init=False, default=())
    # By start: the mask of its hardest held-out rows and the accuracy of its reference model.
    _references: dict[str, tuple[Tensor, Tensor]] = field(init=False, default_factory=dict)

    def reset(self, starts: Sequence[Start], copies: int = 1) -> Round:
        """Begin E episodes; the copies of a start stand next to each other."""
        device = self.data.x.device
        self.starts, self.copies = tuple(starts), copies
        columns = [self.data.columns(s.roles.pool) for s in starts]
        self._x, self._present, self._labels = self._rows(columns)  # [S, M, D + 1, P] ...
        self._density = torch.stack([self.data.density[c] for c in columns])
        held = [np.concatenate([s.roles.validation, s.roles.holdout]) for s in starts]
        self._held_x, self._held_present, self._held_labels = self._rows([self.data.columns(h) for h in held])
        self._validation_rows = len(starts[0].roles.validation)
        seeds = [s.seed for s in starts]
        self.initial = initial_parameters(
            seeds, len(self.data.modalities), self._x.shape[2] - 1, self.data.num_classes, self.model.hidden
        ).map(lambda p: p.to(device))
        self._seeds = tuple(seed for seed in seeds for _ in range(copies))
        labelled = torch.from_numpy(np.stack([s.initial for s in starts])).to(device)
        # The copies still agree: one model per start serves them all.
        self._hard, self._reference_accuracy = self._refer(seeds)
        model = self._fit(self.initial, labelled, seeds)
        self.initial = self.initial.map(lambda p: per_episode(p, len(self._seeds)))
        model = TaskModel(
            model.parameters.map(lambda p: per_episode(p, len(self._seeds))),
            per_episode(model.loss_slope, len(self._seeds)),
            per_episode(model.gradient_norm, len(self._seeds)),
        )
        return self._begin_round(0, per_episode(labelled, len(self._seeds)), model)

    def label(self, picks: Tensor) -> Round:
        """Buy the labels of picks [E, b] (pool positions), retrain, and begin the next round.

        Raises:
            ValueError: where a pick is repeated, already labelled or outside the pool.
        """
        picks = torch.as_tensor(picks, dtype=torch.int64, device=self._x.device)
        self._check(picks)
        labelled = torch.cat([self.round.labelled, picks], 1)
        model = self._fit(self.initial, labelled, list(self._seeds))
        return self._begin_round(self.round.index + 1, labelled, model)

    def _check(self, picks: Tensor) -> None:
        pool = self.round.available.shape[1]
        if picks.dim() != 2 or picks.shape[0] != self.round.episodes:
            raise ValueError(f"picks have shape {list(picks.shape)}; expected [{self.round.episodes}, b]")
        if bool(((picks < 0) | (picks >= pool)).any()):
            raise ValueError(f"picks must lie in 0 .. {pool - 1}; got {int(picks.min())} .. {int(picks.max())}")
        times = torch.zeros_like(self.round.available, dtype=torch.int64)
        times.scatter_add_(1, picks, torch.ones_like(picks))
        bad = ((times > 1) | ((times == 1) & ~self.round.available)).nonzero()
        if len(bad):
            episode, position = bad[0].tolist()
            raise ValueError(f"episode {episode}: position {position} is picked twice or already labelled")

    def _rows(self, columns: list[np.ndarray]) -> tuple[Tensor, Tensor | None, Tensor]:
        index = [torch.from_numpy(c).to(self.data.x.device) for c in columns]
        x = torch.stack([self.data.x[:, :, i] for i in index])
        present = None
        if self.data.present is not None:
            present = torch.stack([self.data.present[:, i] for i in index])
        return x, present, torch.stack([self.data.labels[i] for i in index])

    def _fit(self, initial: Parameters, labelled: Tensor, seeds: list[int]) -> TaskModel:
        present = None if self._present is None else rows_at(self._present, labelled)
        labels = rows_at(self._labels, labelled)
        return fit(initial, rows_at(self._x, labelled), labels, self.model, present, seeds)

    def _begin_round(self, index: int, labelled: Tensor, model: TaskModel) -> Round:
        episodes = len(self._seeds)
        available = torch.ones(episodes, self._x.shape[3], dtype=torch.bool, device=self._x.device)
        available.scatter_(1, labelled, False)
        self._marks = mark(model, self._held_x, self._held_present, self._held_labels)
        # Only the validation rows inform choosers; the held-out rows wait for `measure`.
        validation = validate(self._marks.rows(slice(0, self._validation_rows)))
        self.round = Round(
            index=index,
            rounds=self.protocol.rounds,
            seeds=self._seeds,
            model=model,
            x=self._x,
            present=self._present,
            density=self._density,
            available=available,
            labelled=labelled,
            labels=rows_at(self._labels, labelled),
            weights=contribution_weights(validation.delta, self.protocol.amcb_temperature, self.protocol.amcb_floor),
            validation=validation,
            initial=self.initial,
            config=self.model,
        )
        return self.round

    def measure(self) -> Measurements:
        """Accuracies of the current models on the held-out rows."""
        marks = self._marks.rows(slice(self._validation_rows, None))
        hard = per_episode(self._hard, len(self._seeds)).float()
        return Measurements(
            accuracy=marks.correct.mean(1),
            soft_accuracy=marks.likelihood.mean(1),
            modality_accuracy=marks.modality_accuracy(),
            hard_accuracy=(marks.correct * hard).sum(1) / hard.sum(1).clamp_min(1.0),
        )

    @property
    def reference_accuracy(self) -> Tensor:
        """Accuracy on the held-out rows of a model trained on all the labels of the pool, [E]."""
        return per_episode(self._reference_accuracy, len(self._seeds))

    def contributions(self) -> Tensor:
        """Shapley value of each modality for the held-out accuracy of the current models, [E, M]."""
        model, (x, present, labels) = self.round.model, self._holdout()
        labels = per_episode(labels, len(self._seeds))
        return accuracy_contributions(model.parameters.multimodal_head, model.encode(x, present), labels)

    def _holdout(self) -> tuple[Tensor, Tensor | None, Tensor]:
        """Features, presence and labels of the held-out rows, by start."""
        at = slice(self._validation_rows, None)
        present = None if self._held_present is None else self._held_present[..., at]
        return self._held_x[..., at], present, self._held_labels[:, at]

    def _refer(self, seeds: list[int]) -> tuple[Tensor, Tensor]:
        """Mask [S, R] of the hardest third of each start's held-out rows, and the reference models' accuracy [S].

        Hardness is the difficulty U of a reference model trained on all the labels of the pool, fixed before any
        selection, so that none can move it.
        """
        keys = [start.digest for start in self.starts]
        new = [i for i, key in enumerate(keys) if key not in self._references]
        if new:
            present = None if self._present is None else self._present[new]
            initial = self.initial.map(lambda p: p[new])
            reference = fit(initial, self._x[new], self._labels[new], self.model, present, [seeds[i] for i in new])
            x, held_present, labels = self._holdout()
            held = reference.predict(x[new], None if held_present is None else held_present[new])
            even = held.evidence.new_full((1, len(self.data.modalities)), 1.0 / len(self.data.modalities))
            u = difficulty(fuse_evidence(held.evidence, even))
            hardest = u.topk(max(u.shape[1] // 3, 1), dim=1).indices
            masks = torch.zeros_like(u, dtype=torch.bool).scatter_(1, hardest, True)
            accuracy = (held.logits.argmax(1) == labels[new]).float().mean(1)
            self._references |= {keys[i]: pair for i, pair in zip(new, zip(masks, accuracy, strict=True), strict=True)}
        masks, accuracies = zip(*(self._references[key] for key in keys), strict=True)
        return torch.stack(masks), torch.stack(accuracies)
