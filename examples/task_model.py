"""A task model of your own: the nearest class centroid in each modality, in closed form, with no training steps.

    python -m examples.task_model

Environments and comparisons take it from Python: `EnvConfig(model=CentroidConfig())`, `CompareConfig(model=...)`.
What the parts owe each other stands in `envs/models/base.py`. Standardised features with a constant last one, zero
where a modality is absent, serve as hidden features; `prepare` and `StartRows` are the frozen-feature model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Self

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from envs.contract import check_task_model
from envs.fields import Section
from envs.models.base import Outputs, RowResults, per_episode
from envs.models.frozen.model import StartRows
from envs.models.frozen.preparation import PreparedPool, prepare
from envs.models.frozen.trainer import FrozenConfig
from envs.pools import Pool
from envs.pools.partition import Start
from envs.simulation import ProtocolConfig, Simulation
from envs.source import evaluation_starts, evaluation_trainer
from envs.sources import open_dataset
from policies.strategies import get_strategy


@dataclass(frozen=True)
class CentroidConfig(Section, prefix="model."):
    """Settings of the centroids."""

    shrinkage: Annotated[float, Ge(0)] = 1.0  # samples at the origin that every class begins with
    temperature: Annotated[float, Gt(0)] = 4.0  # of the softmax over negative half squared distances

    def trainer(
        self, pool: Pool, rows: np.ndarray, others: np.ndarray | None = None, device: str | torch.device = "cpu"
    ) -> CentroidTrainer:
        """A trainer for a pool; scales and components are found on `rows`."""
        return CentroidTrainer(prepare(pool, rows, others, device=device), self)


@dataclass(frozen=True)
class CentroidModel:
    """E classifiers: `heads` [E, M, C, H] give each modality's logits, and all modalities' logits add up."""

    rows: StartRows
    labelled: Tensor  # pool positions [E, n] that they learned from
    heads: Tensor
    config: CentroidConfig

    @property
    def head(self) -> Tensor:
        return self.heads.transpose(1, 2).flatten(2)  # [E, C, M H]

    @property
    def loss_slope(self) -> Tensor:
        return torch.zeros(len(self.heads), device=self.heads.device)  # no steps, no slope

    gradient_norm = loss_slope

    def outputs(self, positions: Tensor | None = None) -> Outputs:
        if positions is None:
            return self._answer(self.rows.x, self.rows.present)
        at = self.rows.labelled(positions)
        return self._answer(at.x, at.present)

    def outputs_of(self, rows: np.ndarray) -> Outputs:
        data = self.rows.data
        columns = torch.from_numpy(data.columns(rows)).to(data.x.device)
        return self._answer(
            data.x[None, :, :, columns], None if data.present is None else data.present[None, :, columns]
        )

    def outputs_held_out(self, at: slice) -> Outputs:
        present = self.rows.held_present
        return self._answer(self.rows.held_x[..., at], None if present is None else present[..., at])

    def held_out(self) -> RowResults:
        outputs = self.outputs_held_out(slice(None))
        labels = per_episode(self.rows.held_labels, len(self.heads))  # [E, R]
        confidence, predicted = outputs.probabilities.max(1)
        likelihood = outputs.probabilities.gather(1, labels[:, None])[:, 0]
        own = outputs.modality_logits.argmax(2) == labels[:, None]
        if outputs.present is not None:
            own &= outputs.present
        return RowResults((predicted == labels).float(), confidence, likelihood, own, self.rows.held_present)

    def inputs(self) -> Tensor:
        return self.rows.x[:, :, :-1].flatten(1, 2)

    def refitted(self, heads: str = "evidential", dropout: float = 0.0, first: int | None = None) -> CentroidModel:
        # There is no loss to choose, and no step to drop a unit in.
        return _fitted(self.rows, self.labelled[:, :first], self.heads.shape[2], self.config)

    def _answer(self, x: Tensor, present: Tensor | None) -> Outputs:
        """Outputs for rows x [E or S, M, H, R]."""
        hidden = per_episode(x, len(self.heads))
        if present is not None:
            present = per_episode(present, len(self.heads))
            hidden = hidden * present[:, :, None]
        logits = self.heads @ hidden  # [E, M, C, R]
        return Outputs(hidden, logits, logits.sum(1), present)


@dataclass
class CentroidTrainer:
    """Trains `CentroidModel`s."""

    data: PreparedPool
    config: CentroidConfig
    rows: StartRows = field(init=False)  # of the starts that `begin` was given

    @property
    def device(self) -> torch.device:
        return self.data.x.device

    @property
    def density(self) -> Tensor:
        return self.rows.density

    @property
    def labels(self) -> Tensor:
        return self.rows.labels

    @property
    def held_out_labels(self) -> Tensor:
        return self.rows.held_labels

    def begin(self, starts: Sequence[Start], copies: int = 1) -> CentroidModel:
        held = [np.concatenate([s.roles.validation, s.roles.holdout]) for s in starts]
        self.rows = StartRows.gather(self.data, [s.seed for s in starts], [s.roles.pool for s in starts], held)
        initial = torch.from_numpy(np.stack([s.initial for s in starts])).to(self.device)
        return self.fit(per_episode(initial, len(starts) * copies))

    def fit(self, labelled: Tensor) -> CentroidModel:
        return _fitted(self.rows, labelled, self.data.num_classes, self.config)

    def reference(self, starts: Sequence[int]) -> CentroidModel:
        everything = torch.arange(self.labels.shape[1], device=self.device).expand(len(starts), -1)
        return _fitted(self.rows.starts(starts), everything, self.data.num_classes, self.config)

    def inputs(self, rows: np.ndarray) -> Tensor:
        return self.data.inputs(rows)

    def relabelled(self, rows: np.ndarray, labels: np.ndarray, num_classes: int) -> Self:
        return type(self)(self.data.relabelled(rows, labels, num_classes), self.config)

    def to(self, device: str | torch.device) -> Self:
        return type(self)(self.data.to(device), self.config)


def _fitted(rows: StartRows, labelled: Tensor, classes: int, config: CentroidConfig) -> CentroidModel:
    """z . c - |c|^2 / 2 for the centroid c of each class: the negative half squared distance, up to |z|^2 / 2."""
    learned = rows.labelled(labelled)
    x = learned.x if learned.present is None else learned.x * learned.present[:, :, None]
    of_class = torch.nn.functional.one_hot(learned.labels, classes).to(x.dtype)  # [E, n, C]
    sums = (x @ of_class[:, None]).mT  # [E, M, C, H]; the last unit counts
    centroids = sums[..., :-1] / (sums[..., -1:] + config.shrinkage).clamp_min(1e-6)
    bias = -0.5 * centroids.square().sum(3, keepdim=True)
    return CentroidModel(rows, labelled, torch.cat([centroids, bias], 3) / config.temperature, config)


def main() -> None:
    """Check the contract, then label digits by margin with this model and with ours."""
    check_task_model(CentroidConfig())
    pool, protocol = open_dataset("digits"), ProtocolConfig()
    for config in (CentroidConfig(), FrozenConfig()):
        simulation = Simulation(evaluation_trainer(pool, config), protocol)
        simulation.reset(evaluation_starts(pool, protocol, range(5)))
        accuracies = [simulation.measure().accuracy]
        accuracies += [step.after.accuracy for step in simulation.play(get_strategy("margin"))]
        line = " ".join(f"{100 * float(accuracy.mean()):5.1f}" for accuracy in accuracies)
        print(
            f"{type(config).__name__:15s} {line}   all labels {100 * float(simulation.reference_accuracy.mean()):.1f}"
        )


if __name__ == "__main__":
    main()
