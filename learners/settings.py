"""Settings: typed dataclasses, a YAML file and command-line flags over them, and clear words about mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from envs.candidates.offer import CandidateConfig
from envs.errors import ConfigError, nearest
from envs.models.frozen.model import TaskModelConfig
from envs.multimodal_al import EnvConfig
from envs.rewards import RewardConfig
from envs.simulation import ProtocolConfig
from learners.algorithms import get_algorithm
from learners.algorithms.advantages import ADVANTAGES
from learners.algorithms.base import Trainer
from policies.selector import SelectorConfig

PRESETS = Path(__file__).parent / "presets"
T = TypeVar("T")


@dataclass(frozen=True)
class LearnerConfig:
    """How weights follow from episodes by policy gradients: REINFORCE, PPO and APPO."""

    advantage: str = "group"  # group: return-to-go minus the group's mean; ema: one-step minus a moving average
    iterations: int = 60  # at most; `minutes` may end training earlier
    groups: int = 6  # S, starts per iteration, over all environment runners
    copies: int = 16  # G, episodes per start
    learning_rate: float = 0.08  # of Adam
    gradient_clip: float = 1.0  # global norm
    weight_average: float = 0.9  # decay per iteration of the averaged weights that are exported
    advantage_decay: float = 0.9  # ema: share of the moving average that survives an iteration
    advantage_clip: float = 0.0  # ema: largest magnitude of an advantage; 0 for none

    def __post_init__(self) -> None:
        if self.advantage not in ADVANTAGES:
            raise ConfigError(
                f"learner.advantage is {self.advantage!r}.{nearest(self.advantage, ADVANTAGES)} "
                f"It must be one of {', '.join(ADVANTAGES)}."
            )
        for name in ("iterations", "groups", "copies"):
            if getattr(self, name) < 1:
                raise ConfigError(f"learner.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.advantage == "group" and self.copies < 2:
            raise ConfigError("learner.copies is 1; advantage 'group' compares copies, so it needs at least 2.")
        if not self.learning_rate > 0:
            raise ConfigError(f"learner.learning_rate is {self.learning_rate}; it must be above 0.")
        if not self.gradient_clip > 0:
            raise ConfigError(f"learner.gradient_clip is {self.gradient_clip}; it must be above 0.")
        if not self.advantage_clip >= 0:
            raise ConfigError(f"learner.advantage_clip is {self.advantage_clip}; it cannot be negative.")
        for name in ("weight_average", "advantage_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"learner.{name} is {getattr(self, name)}; it must be in [0, 1).")


@dataclass(frozen=True)
class ProximalConfig:
    """What PPO and APPO add to `LearnerConfig`."""

    clip: float = 0.2  # how far the probability ratio per pick may move from 1
    epochs: int | None = None  # passes over an iteration's rows; none: 4 of ppo, 1 of appo
    minibatch_rows: int = 256  # at most so many rows (rounds of episodes) in a gradient step

    def __post_init__(self) -> None:
        if not 0 < self.clip < 1:
            raise ConfigError(f"proximal.clip is {self.clip}; it must be between 0 and 1.")
        for name in ("epochs", "minibatch_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"proximal.{name} is {value}; it must be at least 1.")


@dataclass(frozen=True)
class EvolutionConfig:
    """How weights follow from episodes by an evolution strategy (diagonal CMA-ES)."""

    generations: int = 1000  # at most; `minutes` may end training earlier
    population: int = 16  # P, weight vectors tried in a generation
    starts: int = 2  # S, starts per source and generation; each is played by the whole population
    sigma0: float = 0.5  # standard deviation of the first generation around the policy's initial weights
    vary_protocol: bool = False  # draw initial labels, batch size and rounds anew for each generation and source

    def __post_init__(self) -> None:
        for name, least in (("generations", 1), ("population", 4), ("starts", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"evolution.{name} is {getattr(self, name)}; it must be at least {least}.")
        if not 0 < self.sigma0 < float("inf"):
            raise ConfigError(f"evolution.sigma0 is {self.sigma0}; it must be above 0 and finite.")


@dataclass(frozen=True)
class ResourceConfig:
    """What a run may occupy."""

    num_env_runners: int = 2  # processes that play episodes; 0 plays them in the driver
    num_gpus_per_env_runner: float = 0.0
    num_learners: int = 0  # 0: the driver learns
    num_gpus_per_learner: float = 0.0
    patience_s: float = 600.0  # a process that plays and gives no result for so long counts as hanging

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

    def __post_init__(self) -> None:
        for f in fields(self):
            if getattr(self, f.name) < 0:
                raise ConfigError(f"resources.{f.name} is {getattr(self, f.name)}; it cannot be negative.")
        if not self.patience_s > 0:
            raise ConfigError(f"resources.patience_s is {self.patience_s}; it must be above 0.")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run."""

    datasets: tuple[str, ...] = ("emoji",)  # names or paths
    seed: int = 0
    minutes: float = 10.0  # training ends after the iteration in which they run out
    preset: str = "default"
    algorithm: str = "reinforce"  # or ppo, appo (asynchronous), evolution, module:Class
    starts: int = 64  # distinct episode starts per data set
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    model: TaskModelConfig = field(default_factory=TaskModelConfig)
    candidates: CandidateConfig = field(default_factory=CandidateConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    policy: SelectorConfig = field(default_factory=SelectorConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)  # of all but evolution
    proximal: ProximalConfig = field(default_factory=ProximalConfig)  # of ppo and appo
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    resources: ResourceConfig = field(default_factory=ResourceConfig)

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise ConfigError(f"minutes is {self.minutes}; it must be above 0.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it cannot be negative.")
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
    """A settings dataclass from a nested mapping.

    Raises:
        ConfigError: at an unknown key (with the nearest valid one) or a value of the wrong type, by its full name.
    """
    _refuse_unknown(cls, settings, "")
    try:
        return TypeAdapter(cls).validate_python(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where} is {first['input']!r}: {first['msg'].lower()}.") from None


def _refuse_unknown(cls: type, settings: Any, prefix: str) -> None:
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{prefix.rstrip('.') or 'The settings'} must be a mapping of names to values.")
    hints = get_type_hints(cls)
    for key, value in settings.items():
        if key not in hints:
            raise ConfigError(f"Unknown setting '{prefix}{key}'.{nearest(key, hints)} Valid here: {', '.join(hints)}.")
        if is_dataclass(hints[key]):
            _refuse_unknown(hints[key], value, f"{prefix}{key}.")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A mapping from a YAML file.

    Raises:
        ConfigError: where the file cannot be read or is no mapping.
    """
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read settings from {path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded or {}, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not a {type(loaded).__name__}.")
    return loaded or {}


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


def flat(nested: Any, lists: bool = False, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; with `lists`, what lists hold by its position."""
    if lists and isinstance(nested, list):
        nested = dict(enumerate(nested))
    if not isinstance(nested, Mapping):
        return {prefix: nested}
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, lists, f"{prefix}.{key}" if prefix else str(key))
    return found


def parse_overrides(assignments: list[str]) -> dict[str, Any]:
    """`["learner.copies=8", ...]` as a nested mapping; values are read as YAML."""
    settings: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ConfigError(f"Cannot read the setting {assignment!r}; write NAME=VALUE, as in learner.copies=8.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"Cannot read the value in {assignment!r} as YAML.") from None
        for part in reversed(name.split(".")):
            value = {part: value}
        settings = merge(settings, value)
    return settings


def to_yaml(config: Any) -> str:
    """A settings dataclass as YAML that `build` reads back."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, list | tuple) else value

    return yaml.safe_dump(plain(asdict(config)), sort_keys=False)
