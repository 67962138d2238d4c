"""Settings: typed dataclasses, a YAML file and command-line flags over them, and clear words about mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from annotated_types import Ge, Gt

from envs import fields
from envs.candidates import CandidateConfig
from envs.errors import ConfigError, nearest, shorten
from envs.fields import Help, Section, declarations
from envs.models.frozen.trainer import FrozenConfig
from envs.multimodal_al import EnvConfig
from envs.reading import bounded, reading
from envs.rewards import RewardConfig
from envs.simulation import ProtocolConfig
from learners.algorithms import get_algorithm
from learners.algorithms.base import Trainer
from learners.algorithms.config import EvolutionConfig, LearnerConfig, ProximalConfig
from learners.strict_yaml import parse_yaml
from policies.selector import SelectorConfig

PRESETS = Path(__file__).parent / "presets"
T = TypeVar("T", bound=Section)


@dataclass(frozen=True)
class ResourceConfig(Section, prefix="resources."):
    """What a run may occupy."""

    num_env_runners: Annotated[int, Ge(0), Help("processes that play episodes")] = 2  # 0: the driver plays them
    num_gpus_per_env_runner: Annotated[float, Ge(0), Help("GPU share of each")] = 0.0
    num_learners: Annotated[int, Ge(0)] = 0  # 0: the driver learns
    num_gpus_per_learner: Annotated[float, Ge(0)] = 0.0
    # A process that plays and gives no result for so long counts as hanging.
    patience_s: Annotated[float, Gt(0)] = 600.0

    @property
    def processes(self) -> int:
        """Processes beside the driver."""
        return self.num_env_runners + self.num_learners

    @property
    def gpus(self) -> float:
        """GPUs of all processes together."""
        return (
            self.num_env_runners * self.num_gpus_per_env_runner + max(self.num_learners, 1) * self.num_gpus_per_learner
        )


@dataclass(frozen=True)
class TrainConfig(Section, prefix=""):
    """Everything that decides a training run."""

    datasets: tuple[str, ...] = ("emoji",)  # names or paths
    seed: Annotated[int, Ge(0), Help("decides starts and draws")] = 0
    # At least LEAST_ITERATIONS of learners.training are played.
    minutes: Annotated[float, Gt(0), Help("of training; the iteration in which they run out is the last")] = 10.0
    preset: str = "default"
    algorithm: Annotated[str, Help("reinforce, ppo, appo, evolution, or module:Class of your own")] = "reinforce"
    starts: Annotated[int, Ge(1)] = 64  # distinct episode starts per data set
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    model: FrozenConfig = field(default_factory=FrozenConfig)
    candidates: CandidateConfig = field(default_factory=CandidateConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    policy: SelectorConfig = field(default_factory=SelectorConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)  # of all but evolution
    proximal: ProximalConfig = field(default_factory=ProximalConfig)  # of ppo and appo
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    resources: ResourceConfig = field(default_factory=ResourceConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.datasets:
            raise ConfigError("Nothing to train on: name at least one data set.")
        for number, name in enumerate(self.datasets):
            if name in self.datasets[:number]:
                raise ConfigError(f"'{name}' is the same data set as '{name}'; name it once.")
        self.trainer.check(self)

    @property
    def trainer(self) -> type[Trainer]:
        """The algorithm."""
        return get_algorithm(self.algorithm)

    @property
    def iterations(self) -> int:
        """At most so many iterations or generations."""
        return self.trainer.iterations(self)

    def until(self, iterations: int) -> TrainConfig:
        """The same training, ending after so many iterations."""
        return self.trainer.until(self, iterations)

    def env(self) -> EnvConfig:
        """The environment that this run trains on."""
        return EnvConfig(
            datasets=self.datasets,
            protocol=self.protocol,
            model=self.model,
            candidates=self.candidates,
            reward=self.reward,
            features=self.policy.features,
            starts=self.starts,
            copies=self.learner.copies,
            seed=self.seed,
            device="auto",
        )


def build(cls: type[T], settings: Mapping[str, Any]) -> T:
    """A settings dataclass from a nested mapping; a preset that it names lies below the other settings.

    Raises:
        ConfigError: at an unknown key (with the nearest valid one) or a value of the wrong type, by its full name.
    """
    if "preset" in settings and "preset" in declarations(cls):
        settings = merge(read_preset(settings["preset"]), settings)
    return fields.build(cls, settings)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A mapping from a YAML file.

    Raises:
        ConfigError: where the file cannot be read or is no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read settings from {path}: {error}") from None
    with reading(path, "is not valid YAML: {reason}", ConfigError):
        loaded = bounded(lambda given: parse_yaml(given, str(path)), text)
    if loaded is None:  # only comments
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not a {type(loaded).__name__}.")
    return loaded


def preset_names() -> list[str]:
    """Names that `--preset` knows."""
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """The settings of a preset."""
    if name not in preset_names():
        raise ConfigError(
            f"Unknown preset {name!r}.{nearest(name, preset_names())} Presets: {', '.join(preset_names())}."
        )
    settings = read_yaml(PRESETS / f"{name}.yaml")
    base = settings.pop("base", None)
    return merge(read_preset(base) if base else {}, settings) | {"preset": name}


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, mapping by mapping."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def parse_overrides(assignments: list[str]) -> dict[str, Any]:
    """`["learner.copies=8", ...]` as a nested mapping; values are read as YAML."""
    settings: dict[str, Any] = {}
    seen: dict[str, str] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise ConfigError(f"Cannot read the setting {assignment!r}; write NAME=VALUE, as in learner.copies=8.")
        if not text:
            raise ConfigError(f"The setting {assignment!r} has no value; write NAME=VALUE, or leave it out.")
        _refuse_twice(name, assignment, seen)
        with reading(shorten(assignment), "cannot be read as YAML: {reason}", ConfigError):
            value = bounded(partial(parse_yaml, source=f"The setting {assignment!r}"), text)
        for part in reversed(name.split(".")):
            value = {part: value}
        settings = merge(settings, value)
    return settings


def _refuse_twice(name: str, assignment: str, seen: dict[str, str]) -> None:
    """Raise ConfigError where a name, or one above or below it, is among those seen; add it."""
    for other, before in seen.items():
        if f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}."):
            raise ConfigError(f"{before!r} and {assignment!r} set the same; give one of the two.")
    seen[name] = assignment


def to_yaml(config: Any) -> str:
    """A settings dataclass as YAML that `build` reads back."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return yaml.safe_dump(plain(asdict(config)), sort_keys=False)
