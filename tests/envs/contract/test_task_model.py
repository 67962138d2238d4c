"""The check of task models: the one that ships passes, and each way to break the contract is found."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.contract import check_task_model
from envs.errors import ContractError
from envs.models.base import Outputs
from envs.models.frozen.model import FrozenModel
from envs.models.frozen.trainer import FrozenConfig, FrozenTrainer


def test_the_task_model_that_ships_keeps_it() -> None:
    check_task_model(FrozenConfig(hidden=8, steps=8))
    check_task_model(FrozenConfig(hidden=8, steps=8, minibatch=5))


@dataclasses.dataclass(frozen=True)
class Broken(FrozenConfig):
    """A task model that differs in one respect from the one that ships."""

    fault: str = ""

    def trainer(self, *args: Any, **kwargs: Any) -> FrozenTrainer:
        trainer = super().trainer(*args, **kwargs)
        return BrokenTrainer(trainer.data, self)


class BrokenTrainer(FrozenTrainer):
    """Gives models that break the contract as its configuration says."""

    config: Broken

    def begin(self, *args: Any) -> FrozenModel:
        return self._broken(super().begin(*args))

    def fit(self, labelled: Tensor) -> FrozenModel:
        if self.config.fault == "deaf":
            labelled = labelled[:, :12]
        if self.config.fault == "greedy":
            labelled = torch.arange(self.labels.shape[1]).expand(len(labelled), -1)
        model = super().fit(labelled)
        if self.config.fault == "chatty":  # neighbours are averaged in
            model = dataclasses.replace(model, fitted=mixed(model))
        return self._broken(model)

    def reference(self, starts: Sequence[int]) -> FrozenModel:
        return super().reference([0, 1] if self.config.fault == "generous" else starts)

    def to(self, device: str | torch.device) -> FrozenTrainer:
        return BrokenTrainer(self.data.to(device), self.config)

    def __reduce__(self) -> Any:
        if self.config.fault == "unpicklable":
            raise TypeError("cannot pickle this")
        return BrokenTrainer, (self.data, self.config)

    def _broken(self, model: FrozenModel) -> FrozenModel:
        fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
        return BrokenModel(**fields, fault=self.config.fault)


def mixed(model: FrozenModel) -> Any:
    fitted = model.fitted
    mean = fitted.parameters.map(lambda p: p.mean(0, keepdim=True).expand_as(p).contiguous())
    return dataclasses.replace(fitted, parameters=mean)


CHANGES: dict[str, Callable[[Outputs], Outputs]] = {
    "not linear": lambda o: dataclasses.replace(o, logits=o.logits.square()),
    "not finite": lambda o: dataclasses.replace(o, logits=o.logits * float("nan")),
    "no constant unit": lambda o: dataclasses.replace(o, hidden=o.hidden.flip(2)),
    "a class too few": lambda o: dataclasses.replace(o, modality_logits=o.modality_logits[:, :, 1:]),
}


@dataclasses.dataclass(frozen=True)
class BrokenModel(FrozenModel):
    """Answers that break the contract."""

    fault: str = ""

    def outputs(self, positions: Tensor | None = None) -> Outputs:
        outputs = super().outputs(positions)
        if self.fault == "forgetful" and positions is not None:
            outputs = super().outputs(positions.roll(1, 1))
        return CHANGES.get(self.fault, lambda o: o)(outputs)

    def outputs_of(self, rows: np.ndarray) -> Outputs:
        return super().outputs_of(rows[::-1].copy() if self.fault == "backwards" else rows)

    def refitted(self, heads: str = "evidential", dropout: float = 0.0, first: int | None = None) -> FrozenModel:
        return super().refitted(heads, dropout, None if self.fault == "hoarding" else first)

    def inputs(self) -> Tensor:
        return super().inputs() + (self.labelled.shape[1] if self.fault == "restless" else 0)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("not linear", "head @ embedding"),
        ("not finite", "logits is not finite"),
        ("no constant unit", "last unit"),
        ("a class too few", "modality_logits has shape"),
        ("forgetful", "outputs.positions. and outputs.. differ"),
        ("backwards", "outputs_of.rows. and outputs"),
        ("restless", "inputs.. changes"),
        ("deaf", "further labels change nothing"),
        ("greedy", "labels that nobody bought"),
        ("chatty", "beside it change"),
        ("generous", "gives 2 models"),
        ("hoarding", "refitted.first=12. gives other models"),
        ("unpicklable", "cannot be pickled"),
    ],
)
def test_what_breaks_it_is_named(fault: str, says: str) -> None:
    with pytest.raises(ContractError, match=f"(?i){says}"):
        check_task_model(Broken(hidden=8, steps=8, fault=fault))


def test_a_configuration_must_be_a_dataclass() -> None:
    with pytest.raises(ContractError, match="no dataclass"):
        check_task_model(object())  # type: ignore[arg-type]
