"""The labelling simulation: E episodes of active learning in lockstep, without any reinforcement learning.

An episode is a start (roles of the rows, initial labels, initial parameters) and the batches that somebody
picks. `copies` episodes share each start, so whatever they differ by is the picks' doing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from envs.errors import ConfigError, shorten
from envs.fields import Section
from envs.models.accuracy import validate
from envs.models.base import RowResults, TaskModel, TaskTrainer, per_episode, rows_at
from envs.models.contribution import accuracy_contributions, contribution_weights
from envs.models.evidence import difficulty, fuse_evidence
from envs.pools.partition import Start
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

    @property
    def name(self) -> str:
        """The labels in short, as `at` reads them: 20+10x10 for 20 labels and 10 rounds of 10."""
        return f"{self.initial_labels}+{self.rounds}x{self.batch_size}"

    def at(self, name: str) -> ProtocolConfig:
        """The same with other numbers of labels, initial+rounds x batch.

        Raises:
            ConfigError: where the name is not of this form, or names an impossible number.
        """
        found = re.fullmatch(r"(\d{1,9})\+(\d{1,9})x(\d{1,9})", name.replace(" ", ""))
        if found is None:
            raise ConfigError(
                f"The budget {shorten(name)} cannot be read; write INITIAL+ROUNDSxBATCH, as in 20+10x10 for 20 labels "
                "and 10 rounds of 10."
            )
        initial, rounds, batch = map(int, found.groups())
        return replace(self, initial_labels=initial, rounds=rounds, batch_size=batch)

    def check_budget(self, pool_rows: int, where: str) -> None:
        """Raise ConfigError where the pool cannot supply the budget."""
        if self.budget > pool_rows:
            raise ConfigError(
                f"The budget of {self.budget} labels ({self.initial_labels} + {self.rounds} rounds x "
                f"{self.batch_size}) is above the {pool_rows} pool rows of {where}; lower protocol.rounds, "
                f"protocol.batch_size or protocol.initial_labels."
            )


class InvalidPicks(ValueError):
    """A batch names a position twice, one that is labelled already, or one outside the pool."""


@dataclass(frozen=True)
class Measurements:
    """How good the E task models are on the held-out rows; [E] each unless said otherwise."""

    accuracy: Tensor
    soft_accuracy: Tensor  # mean probability of the true class
    modality_accuracy: Tensor  # [E, M] of each modality's own head
    hard_accuracy: Tensor  # on the hardest third of the held-out rows


@dataclass(frozen=True)
class Step:
    """One round of an episode: what the chooser saw, what it picked, and how good the models were before and after."""

    round: Round
    picks: Tensor  # int64 [E, b] pool positions
    before: Measurements
    after: Measurements


@dataclass(frozen=True)
class _Reference:
    """What a start's reference model says, which was trained on all the labels of the pool."""

    hardest: Tensor  # bool [R] the hardest third of the holdout rows
    accuracy: Tensor  # on the holdout rows, []


@dataclass
class Simulation:
    """E = len(starts) * copies episodes.

    Args:
        trainer: trains the task models.
        protocol: episode settings.
    """

    trainer: TaskTrainer
    protocol: ProtocolConfig
    round: Round = field(init=False)
    starts: tuple[Start, ...] = field(init=False, default=())
    copies: int = field(init=False, default=1)
    _results: RowResults = field(init=False)  # of the current models on the held-out rows
    _references: dict[str, _Reference] = field(init=False, default_factory=dict)  # by start

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.starts) * self.copies

    def reset(self, starts: Sequence[Start], copies: int = 1) -> Round:
        """Begin E episodes; the copies of a start stand next to each other."""
        self.starts, self.copies = tuple(starts), copies
        model = self.trainer.begin(starts, copies)
        labelled = torch.stack([torch.from_numpy(s.initial) for s in starts]).to(self.trainer.device)
        return self._begin_round(0, per_episode(labelled, self.episodes), model)

    def label(self, picks: Tensor) -> Round:
        """Buy the labels of picks [E, b] (pool positions), retrain, and begin the next round.

        Raises:
            InvalidPicks: where a pick is repeated, already labelled or outside the pool.
        """
        picks = torch.as_tensor(picks, dtype=torch.int64, device=self.trainer.device)
        self._check(picks)
        labelled = torch.cat([self.round.labelled, picks], 1)
        return self._begin_round(self.round.index + 1, labelled, self.trainer.fit(labelled))

    def play(self, choose: Callable[[Round, int], Tensor]) -> Iterator[Step]:
        """Go on to the end of the episodes, a step at a time.

        Args:
            choose: picks [E, b] given a round and b.

        Raises:
            InvalidPicks: where its picks are no batch.
        """
        after = self.measure()
        while self.round.index < self.protocol.rounds:
            round_, before = self.round, after
            picks = choose(round_, self.protocol.batch_size)
            self.label(picks)
            after = self.measure()
            yield Step(round_, picks, before, after)

    def _check(self, picks: Tensor) -> None:
        pool = self.round.available.shape[1]
        if picks.dim() != 2 or picks.shape[0] != self.round.episodes:
            raise InvalidPicks(f"picks have shape {list(picks.shape)}; expected [{self.round.episodes}, b]")
        if bool(((picks < 0) | (picks >= pool)).any()):
            raise InvalidPicks(f"picks must lie in 0 .. {pool - 1}; got {int(picks.min())} .. {int(picks.max())}")
        times = torch.zeros_like(self.round.available, dtype=torch.int64)
        times.scatter_add_(1, picks, torch.ones_like(picks))
        bad = ((times > 1) | ((times == 1) & ~self.round.available)).nonzero()
        if len(bad):
            episode, position = bad[0].tolist()
            raise InvalidPicks(f"episode {episode}: position {position} is picked twice or already labelled")

    def _begin_round(self, index: int, labelled: Tensor, model: TaskModel) -> Round:
        labels = self.trainer.labels
        available = torch.ones(self.episodes, labels.shape[1], dtype=torch.bool, device=labels.device)
        available.scatter_(1, labelled, False)
        self._results = model.held_out()
        # Only the validation rows inform choosers; the holdout rows wait for `measure`.
        validation = validate(self._results.rows(slice(0, self._validation_rows)))
        self.round = Round(
            index=index,
            rounds=self.protocol.rounds,
            seeds=tuple(s.seed for s in self.starts for _ in range(self.copies)),
            model=model,
            density=self.trainer.density,
            available=available,
            labelled=labelled,
            labels=rows_at(labels, labelled),
            weights=contribution_weights(validation.delta, self.protocol.amcb_temperature, self.protocol.amcb_floor),
            validation=validation,
        )
        return self.round

    @property
    def _validation_rows(self) -> int:
        return len(self.starts[0].roles.validation)

    @property
    def _holdout(self) -> slice:
        """Which of the held-out rows score."""
        return slice(self._validation_rows, None)

    def measure(self) -> Measurements:
        """Accuracies of the current models on the holdout rows."""
        results = self._results.rows(self._holdout)
        hard = per_episode(torch.stack([r.hardest for r in self._refer()]), self.episodes).float()
        return Measurements(
            accuracy=results.correct.mean(1),
            soft_accuracy=results.likelihood.mean(1),
            modality_accuracy=results.modality_accuracy(),
            hard_accuracy=(results.correct * hard).sum(1) / hard.sum(1).clamp_min(1.0),
        )

    @property
    def reference_accuracy(self) -> Tensor:
        """Accuracy on the holdout rows of a model trained on all the labels of the pool, [E]."""
        return per_episode(torch.stack([r.accuracy for r in self._refer()]), self.episodes)

    def contributions(self) -> Tensor:
        """Shapley value of each modality for the accuracy of the current models on the holdout rows, [E, M]."""
        model = self.round.model
        labels = per_episode(self.trainer.held_out_labels[:, self._holdout], self.episodes)
        return accuracy_contributions(model.head, model.outputs_held_out(self._holdout).hidden, labels)

    @property
    def results(self) -> RowResults:
        """Right or wrong of the current models on the held-out rows, validation rows first."""
        return self._results

    def _refer(self) -> list[_Reference]:
        """By start, the hardest third of its holdout rows; trained when first asked for.

        Hardness is the difficulty U of a reference model trained on all the labels of the pool, fixed before any
        selection, so that none can move it.
        """
        keys = [start.digest for start in self.starts]
        new = [i for i, key in enumerate(keys) if key not in self._references]
        if new:
            held = self.trainer.reference(new).outputs_held_out(self._holdout)
            modalities = held.hidden.shape[1]
            u = difficulty(fuse_evidence(held.evidence, held.evidence.new_full((1, modalities), 1.0 / modalities)))
            hardest = u.topk(max(u.shape[1] // 3, 1), dim=1).indices
            masks = torch.zeros_like(u, dtype=torch.bool).scatter_(1, hardest, True)
            right = held.logits.argmax(1) == self.trainer.held_out_labels[new][:, self._holdout]
            for i, mask, accuracy in zip(new, masks, right.float().mean(1), strict=True):
                self._references[keys[i]] = _Reference(mask, accuracy)
        return [self._references[key] for key in keys]
