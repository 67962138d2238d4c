"""The contract of a task model, as a check that anybody can run on one of their own."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from envs.errors import ContractError
from envs.models.base import Outputs, TaskModel, TaskModelConfig, TaskTrainer, per_episode
from envs.pools import Pool
from envs.pools.partition import partition
from envs.simulation import ProtocolConfig, Simulation
from envs.source import training_starts, training_trainer
from envs.sources import open_dataset

_COPIES = 2
_PROTOCOL = ProtocolConfig(initial_labels=12, batch_size=4, rounds=2)
_POOLS = {
    "plain": "synthetic:samples=240,classes=4,modalities=2,dim=6,seed=1",
    "missing modalities": "synthetic:samples=240,classes=3,modalities=3,dim=5,missing=0.33,seed=2",
}


def check_task_model(config: TaskModelConfig) -> None:
    """Check that a kind of task model keeps to `envs.models.base`, on small synthetic pools; takes seconds.

    Outputs must have their shapes, be finite, and agree however they are asked for; the multimodal head must be linear
    in the embedding; absent modalities must count for nothing; the same labels must give the same models, for copies,
    in another instance, after pickling and beside other starts; labels that were not bought must change nothing; and
    `refitted(first=n)` must forget all labels but the first n.

    Raises:
        ContractError: naming what is violated, and on which pool.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ContractError(f"{config!r} is no dataclass; its fields are part of the keys of results.")
    for name, spec in _POOLS.items():
        pool = open_dataset(spec)
        _Check(config, pool, f"on the pool '{name}'").run()


class _Check:
    """The check on one pool."""

    def __init__(self, config: TaskModelConfig, pool: Pool, where: str):
        self.config, self.pool, self.where = config, pool, where
        self.starts = training_starts(pool, _PROTOCOL, (0, 1))
        self.episodes = len(self.starts) * _COPIES

    def run(self) -> None:
        trainer = self.trainer()
        model = trainer.begin(self.starts, _COPIES)
        self.check_trainer(trainer)
        self.check_shapes(model)
        self.check_ways_to_ask(model)
        self.require_same(model, model, [1, 3], [0, 2], "copies of a start begin with other models")
        inputs = model.inputs().clone()
        labelled = self.labelled(more=4)
        later = trainer.fit(labelled)
        self.check_shapes(later)
        self.require_same(later, later, [1, 3], [0, 2], "copies with the same labels get other models")
        if torch.equal(later.outputs().logits, model.outputs().logits):
            self.fail("further labels change nothing")
        if not torch.equal(later.inputs(), inputs):
            self.fail("inputs() changes with training")
        self.check_independence(later, labelled)
        self.check_relabelled(later, labelled)
        self.check_reference(trainer)
        for heads, dropout in (("evidential", 0.0), ("cross_entropy", 0.0), ("evidential", 0.25)):
            self.check_shapes(later.refitted(heads, dropout))
        few = _PROTOCOL.initial_labels
        words = f"refitted(first={few}) gives other models than fit() with the first {few} labels"
        self.require_same(later.refitted(first=few), trainer.fit(labelled[:, :few]), [0, 1, 2, 3], [0, 1, 2, 3], words)
        simulation = Simulation(self.trainer(), _PROTOCOL)
        simulation.reset(self.starts, _COPIES)
        for step in simulation.play(lambda round_, b: round_.available.int().topk(b, dim=1).indices):
            self.require_finite(step.after.accuracy, "accuracy")

    def trainer(self) -> TaskTrainer:
        """A new trainer, as another process would get it."""
        made = training_trainer(self.pool, self.config)
        try:
            return pickle.loads(pickle.dumps(made)).to("cpu")
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            raise ContractError(f"The trainer cannot be pickled before begin(): {error}.") from error

    def labelled(self, more: int) -> Tensor:
        """The initial labels and further ones, the same for copies, [E, n]."""
        rows = []
        for start in self.starts:
            rest = np.setdiff1d(np.arange(len(start.roles.pool)), start.initial)
            rows.append(np.concatenate([start.initial, rest[:more]]))
        return per_episode(torch.from_numpy(np.stack(rows)), self.episodes)

    def check_trainer(self, trainer: TaskTrainer) -> None:
        pools = np.stack([s.roles.pool for s in self.starts])
        held = np.stack([np.concatenate([s.roles.validation, s.roles.holdout]) for s in self.starts])
        self.require_shape(trainer.density, pools.shape, "density")
        self.require_finite(trainer.density, "density")
        for name, labels, rows in (
            ("labels", trainer.labels, pools),
            ("held_out_labels", trainer.held_out_labels, held),
        ):
            if labels.dtype != torch.int64 or not np.array_equal(labels.cpu().numpy(), self.pool.labels[rows]):
                self.fail(f"{name} are not the labels of each start's rows")

    def check_shapes(self, model: TaskModel) -> None:
        rows, classes, modalities = len(self.starts[0].roles.pool), self.pool.num_classes, len(self.pool.modalities)
        outputs = model.outputs()
        self.check_outputs(outputs, model.head, rows, "outputs()")
        held = len(self.starts[0].roles.validation) + len(self.starts[0].roles.holdout)
        self.check_outputs(model.outputs_held_out(slice(0, held)), model.head, held, "outputs_held_out()")
        self.require_shape(model.head, (self.episodes, classes, outputs.embedding().shape[1]), "head")
        for name in ("loss_slope", "gradient_norm"):
            self.require_shape(getattr(model, name), (self.episodes,), name)
            self.require_finite(getattr(model, name), name)
        inputs = model.inputs()
        if inputs.dim() != 3 or (inputs.shape[0], inputs.shape[2]) != (len(self.starts), rows):
            self.fail(f"inputs() has shape {list(inputs.shape)}, not [{len(self.starts)}, D, {rows}]")
        results = model.held_out()
        self.require_shape(results.correct, (self.episodes, held), "held_out().correct")
        self.require_shape(results.modality_correct, (self.episodes, modalities, held), "held_out().modality_correct")

    def check_outputs(self, outputs: Outputs, head: Tensor, rows: int, what: str) -> None:
        classes, modalities = self.pool.num_classes, len(self.pool.modalities)
        hidden = outputs.hidden
        self.require_shape(hidden, (self.episodes, modalities, hidden.shape[2], rows), f"{what}.hidden")
        self.require_shape(
            outputs.modality_logits, (self.episodes, modalities, classes, rows), f"{what}.modality_logits"
        )
        self.require_shape(outputs.logits, (self.episodes, classes, rows), f"{what}.logits")
        for name in ("hidden", "modality_logits", "logits"):
            self.require_finite(getattr(outputs, name), f"{what}.{name}")
        present = torch.ones_like(hidden[:, :, 0]) if outputs.present is None else outputs.present.to(hidden.dtype)
        if not torch.equal(hidden[:, :, -1], hidden[:, :, -1].amax() * present):
            self.fail(f"the last unit of {what}.hidden is not constant where the modality is present, and 0 elsewhere")
        if bool((hidden * (1.0 - present)[:, :, None]).any()):
            self.fail(f"{what}.hidden is not 0 where a modality is absent")
        if not _close(torch.bmm(head, outputs.embedding()), outputs.logits):
            self.fail(f"{what}.logits are not head @ embedding")

    def check_ways_to_ask(self, model: TaskModel) -> None:
        whole = model.outputs()
        positions = torch.arange(0, whole.logits.shape[2], 3).expand(self.episodes, -1)
        self.require_equal_outputs(model.outputs(positions), _at(whole, positions), "outputs(positions) and outputs()")
        rows = self.starts[0].roles.pool[::3]
        of_start = model.outputs_of(rows)
        self.require_equal_outputs(_first(of_start, _COPIES), _first(_at(whole, positions), _COPIES),
                                   "outputs_of(rows) and outputs(positions)")  # fmt: skip
        held = model.outputs_held_out(slice(None))
        held_rows = np.stack([np.concatenate([s.roles.validation, s.roles.holdout]) for s in self.starts])
        labels = torch.from_numpy(self.pool.labels[held_rows])
        right = (held.logits.argmax(1) == per_episode(labels, self.episodes)).float()
        if float((right != model.held_out().correct).float().mean()) > 0.02:  # ties
            self.fail("held_out().correct does not say which rows outputs_held_out() gets right")

    def check_independence(self, model: TaskModel, labelled: Tensor) -> None:
        """Only a start's own bought labels count."""
        again = self.trainer()
        again.begin(self.starts, _COPIES)
        self.require_same(again.fit(labelled), model, [0, 1, 2, 3], [0, 1, 2, 3], "another trainer gives other models")
        alone = self.trainer()
        alone.begin(self.starts[1:], _COPIES)
        self.require_same(alone.fit(labelled[2:]), model, [0, 1], [2, 3], "starts beside it change a start's models")
        hidden = self.pool.labels.copy()
        bought = [s.roles.pool[labelled[_COPIES * i].numpy()] for i, s in enumerate(self.starts)]
        other = np.setdiff1d(np.arange(self.pool.num_samples), np.concatenate(bought))
        hidden[other] = (hidden[other] + 1) % self.pool.num_classes
        changed = dataclasses.replace(self.pool, labels=hidden)
        blind = self.config.trainer(changed, partition(self.pool).policy)
        blind.begin(self.starts, _COPIES)
        words = "labels that nobody bought change the models"
        self.require_same(blind.fit(labelled), model, [0, 1, 2, 3], [0, 1, 2, 3], words)

    def check_relabelled(self, model: TaskModel, labelled: Tensor) -> None:
        """Labels given afterwards are as good as the pool's; inputs(rows) are those of the model."""
        start = self.starts[0]
        rows = np.concatenate([start.roles.pool[labelled[0].numpy()], start.roles.validation, start.roles.holdout])
        other = dataclasses.replace(self.pool, labels=self.pool.labels[::-1].copy())
        told = self.config.trainer(other, partition(self.pool).policy)
        told = told.relabelled(rows, self.pool.labels[rows], self.pool.num_classes)
        told.begin(self.starts[:1], 1)
        self.require_same(told.fit(labelled[:1]), model, [0], [0], "relabelled() trains other models")
        some = start.roles.pool[::3]
        if not _close(self.trainer().inputs(some), model.inputs()[0][:, ::3]):
            self.fail("inputs(rows) of the trainer are not inputs() of its model")

    def check_reference(self, trainer: TaskTrainer) -> None:
        reference = trainer.reference([1])
        if len(reference.head) != 1:
            self.fail(f"reference([1]) gives {len(reference.head)} models, not 1")
        self.require_finite(reference.outputs_held_out(slice(None)).logits, "reference().outputs_held_out().logits")

    def require_same(
        self, one: TaskModel, two: TaskModel, at: Sequence[int], other: Sequence[int], violation: str
    ) -> None:
        a, b = one.outputs().logits[list(at)], two.outputs().logits[list(other)]
        if not _close(a, b):
            self.fail(f"{violation}: logits differ by up to {float((a - b).abs().max()):.3g}")

    def require_equal_outputs(self, one: Outputs, two: Outputs, what: str) -> None:
        for name in ("hidden", "evidence", "logits"):
            if not _close(getattr(one, name), getattr(two, name)):
                self.fail(f"{what} differ in {name}")

    def require_shape(self, values: Tensor, shape: tuple[int, ...], what: str) -> None:
        if tuple(values.shape) != shape:
            self.fail(f"{what} has shape {list(values.shape)}, not {list(shape)}")

    def require_finite(self, values: Tensor, what: str) -> None:
        if not bool(values.isfinite().all()):
            self.fail(f"{what} is not finite")

    def fail(self, violation: str) -> None:
        raise ContractError(f"{violation[0].upper()}{violation[1:]} {self.where}.")


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether values are equal but for rounding; products of other shapes may round otherwise."""
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3)


def _at(outputs: Outputs, positions: Tensor) -> Outputs:
    """The outputs at positions [E, K], cut out of those of the whole pool."""
    present = None if outputs.present is None else outputs.present.gather(2, _over(positions, outputs.present))
    return Outputs(
        outputs.hidden.gather(3, _over(positions, outputs.hidden)),
        outputs.modality_logits.gather(3, _over(positions, outputs.modality_logits)),
        outputs.logits.gather(2, _over(positions, outputs.logits)),
        present,
    )


def _over(positions: Tensor, values: Tensor) -> Tensor:
    """Positions [E, K] as an index over the last axis of values."""
    lead = values.shape[1:-1]
    return positions.view(len(positions), *[1] * len(lead), -1).expand(-1, *lead, -1)


def _first(outputs: Outputs, count: int) -> Outputs:
    """The outputs of the first episodes."""
    present = None if outputs.present is None else outputs.present[:count]
    return Outputs(outputs.hidden[:count], outputs.modality_logits[:count], outputs.logits[:count], present)
