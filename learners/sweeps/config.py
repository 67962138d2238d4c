"""What a sweep is: the files of tune_configs/, typed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge

from envs.errors import ConfigError, nearest
from envs.fields import Help, OneOf, Section
from learners.settings import TrainConfig, build, merge

SEARCHES = ("optuna", "asha", "population")
MEASURED = ("aulc", "weakest_modality", "hard_third", "soft_accuracy")
RANGES = {"uniform": 2, "loguniform": 2, "randint": 2, "choice": None}  # kind -> how many numbers


@dataclass(frozen=True)
class SweepConfig(Section, prefix="sweep."):
    """A search over settings of training."""

    space: dict[str, dict[str, list[Any]]]  # setting, as in reward.hard_third -> {kind: values}
    search: Annotated[str, OneOf(SEARCHES)] = "optuna"
    trials: Annotated[int, Ge(1), Help("trials in all")] = 12
    slices: Annotated[int, Ge(1)] = 1  # measurements per trial, evenly over its iterations
    concurrent: Annotated[int, Ge(1), Help("trials side by side")] = 2  # each in a process of its own
    starts: Annotated[int, Ge(1)] = 10  # episodes in which a policy is measured, the same for all trials
    seed: Annotated[int, Ge(0), Help("decides what is tried")] = 0
    objectives: dict[str, str] = field(default_factory=lambda: {"aulc": "max"})
    train: dict[str, Any] = field(default_factory=dict)  # settings of every trial

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_objectives()
        self._check_search()
        if not self.space:
            raise ConfigError("space is empty; name the settings to search over.")
        for name, values in self.space.items():
            _check_range(name, values)
        first = self.first()
        if not first.policy.only_linear:
            raise ConfigError("A sweep measures linear policies; leave policy.mlp empty and policy.linear true.")
        if self.slices > first.iterations:
            raise ConfigError(f"slices is {self.slices}, and a trial has only {first.iterations} iterations.")

    def _check_objectives(self) -> None:
        for name, mode in self.objectives.items():
            if name not in MEASURED:
                raise ConfigError(
                    f"objectives names {name!r}.{nearest(name, MEASURED)} Measured: {', '.join(MEASURED)}."
                )
            if mode not in ("max", "min"):
                raise ConfigError(f"objectives.{name} is {mode!r}; it must be 'max' or 'min'.")
        if not self.objectives:
            raise ConfigError(f"objectives is empty; name at least one of {', '.join(MEASURED)}.")

    def _check_search(self) -> None:
        """Refuse a search that cannot work by the other settings."""
        if self.search != "optuna" and len(self.objectives) > 1:
            raise ConfigError(f"search {self.search} follows one objective, and there are {len(self.objectives)}.")
        if self.search != "optuna" and self.slices < 2:
            raise ConfigError(
                f"slices is {self.slices}; search {self.search} decides between slices, so give 2 or more."
            )
        if self.search == "population" and self.concurrent < self.trials:
            raise ConfigError(
                f"concurrent is {self.concurrent} and trials {self.trials}; a population trains side by side, so set "
                "concurrent to as many."
            )

    def train_config(self, chosen: Mapping[str, Any]) -> TrainConfig:
        """Settings of the trial that was given these values.

        Raises:
            ConfigError: where they are no settings of training.
        """
        settings: dict[str, Any] = dict(self.train)
        for name, value in chosen.items():
            for part in reversed(name.split(".")):
                value = {part: value}
            settings = merge(settings, value)
        return build(TrainConfig, settings)

    def first(self) -> TrainConfig:
        """Settings of the trial that was given the low end of every range."""
        return self.train_config({name: next(iter(values.values()))[0] for name, values in self.space.items()})


def _check_range(name: str, values: Mapping[str, list[Any]]) -> None:
    if len(values) != 1 or next(iter(values)) not in RANGES:
        kind = next(iter(values), "")
        raise ConfigError(
            f"space.{name} is {dict(values)}.{nearest(kind, RANGES)} Write one of {', '.join(RANGES)} with its values, "
            "as in {uniform: [0, 1]}."
        )
    (kind, given), *_ = values.items()
    if kind == "choice":
        if not given:
            raise ConfigError(f"space.{name}: choice has no values.")
        return
    if len(given) != RANGES[kind] or not all(isinstance(v, int | float) for v in given) or not given[0] < given[1]:
        raise ConfigError(f"space.{name}: {kind} is {given}; write [least, most].")
    if kind == "loguniform" and given[0] <= 0:
        raise ConfigError(f"space.{name}: loguniform begins at {given[0]}; it must be above 0.")
