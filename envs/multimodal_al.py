"""Multimodal active learning as a Gymnasium environment: one step is one round of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import Annotated, Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from annotated_types import Ge
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from envs.actions import action_masks, check_slots, distinct_slots, read_slots
from envs.candidates import (
    DEFAULT_FEATURES,
    CandidateConfig,
    check_features,
    observation_space,
    offer,
)
from envs.errors import ConfigError, nearest
from envs.fields import ReadAs, Section, build
from envs.models.base import TaskModelConfig
from envs.models.frozen.trainer import FrozenConfig
from envs.rewards import Outcome, RewardConfig, reward
from envs.simulation import Measurements, ProtocolConfig, Simulation
from envs.source import Source

_OPTIONS = ("starts", "source", "reset_mask")  # of a reset


@dataclass(frozen=True)
class EnvConfig(Section, prefix="env."):
    """Everything that decides an environment."""

    datasets: tuple[str, ...] = ("emoji",)  # names, paths or families; an episode runs on one of them
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    model: Annotated[TaskModelConfig, ReadAs(FrozenConfig)] = field(default_factory=FrozenConfig)
    candidates: CandidateConfig = field(default_factory=CandidateConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    features: tuple[str, ...] = DEFAULT_FEATURES
    starts: Annotated[int, Ge(1)] = 64  # distinct episode starts per data set
    copies: Annotated[int, Ge(1)] = 1  # G, episodes that share a start (vector environment only)
    seed: Annotated[int, Ge(0)] = 0  # decides the starts; which of them are played, a reset's seed decides
    device: str = "cpu"  # a torch device, or "auto": the GPU that this process may use, else the CPU

    def __post_init__(self) -> None:
        super().__post_init__()
        check_features(self.features)
        if not self.datasets:
            raise ConfigError("No data set is given; name at least one.")

    @classmethod
    def of(cls, config: EnvConfig | Mapping[str, Any] | None) -> EnvConfig:
        """A configuration, or one of a nested mapping of its fields, checked as the command line checks its own."""
        return config if isinstance(config, EnvConfig) else build(cls, {} if config is None else config)


class VectorMultimodalALEnv(VectorEnv):
    """E episodes in lockstep.

    Observation (each with a leading E):
        features: float32 [K, F], the named static features of each candidate: ranks in [-1, 1], or log ratios
        gradient: float32 [K, 64], sketch of its gradient embedding
        hidden: float32 [K, 32], sketch of its normalised hidden features
        fisher: float32 [K, 64], its Fisher embedding, whitened by what is labelled
        input: float32 [K, 64], its input features, scaled to length 1 as a whole
        input_distance: float32 [K], to the nearest labelled one, in those
        uncertainty: float32 [K], 1 less the margin of its most probable class
        labelled_distance: float32 [K], to the nearest labelled one, in hidden features
        predicted: int16 [K], predicted class
        valid: int8 [K], 0 where the slot is empty
        state: float32 [S], one entry for each of `envs.candidates.STATE`
    Action: int64 [b], slots of distinct valid candidates, in the order of picking. An action may name a slot twice or
        an invalid one (any sampler of the action space does): each such entry is replaced by the first valid candidate
        that the action leaves free, and info["replaced"] counts them.
    Reward: float, the weighted terms of `envs.rewards`, measured on rows outside the pool.
    Termination: after T = protocol.rounds steps. Truncation happens where `max_episode_steps` asks for it only.
    Autoreset: NEXT_STEP, the step after an end ignores its action and returns the first observation; or DISABLED.
    Info: arrays [E]: `start` and `source` (numbers), `pool` (which one of a family, else 0), `labels` (of the pool's
        policy half), accuracy, soft_accuracy, hard_accuracy, weakest_modality, `accuracy/<modality>` and
        `amcb/<modality>`; after a step also `reward/<term>`, `baseline/<strategy>`, `difficulty/picked`,
        `difficulty/offered` and, unless `strict`, `replaced`.

    Of a family (`synthetic-family`, see `envs.sources.synthetic_spec.draw_spec`) every reset draws another pool.

    Args:
        config: an EnvConfig, or a mapping of its fields, whose sections may be mappings, too.
        num_envs: E, a multiple of config.copies.
        baseline_curves: strategy -> accuracy [sources, config.starts, T + 1], by round from 0; relative_accuracy is
            relative to their mean, without any to nothing. A family has none, and its entries are not looked at.
        render_mode: None; there is nothing to see.
        max_episode_steps: truncate after so many steps, as Gymnasium's TimeLimit does.
        autoreset_mode: what becomes of the step after an end, as Gymnasium names it.

    Attributes:
        strict: True refuses actions that name a slot twice or an invalid one.
        half: True gives observations in the precision in which our own policies see them.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012 (gymnasium's)
    strict: bool = False
    half: ClassVar[bool] = False

    def __init__(
        self,
        config: EnvConfig | Mapping[str, Any] | None = None,
        num_envs: int = 1,
        baseline_curves: Mapping[str, np.ndarray] | None = None,
        *,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ):
        self.config = EnvConfig.of(config)
        if render_mode is not None:
            raise ConfigError(f"render_mode is {render_mode!r}; there is nothing to see here, so leave it out.")
        self.render_mode = None
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.metadata = self.metadata | {"autoreset_mode": self.autoreset_mode}
        self._limit = _count("max_episode_steps", max_episode_steps) if max_episode_steps is not None else None
        num_envs = _count("num_envs", num_envs)
        if num_envs % self.config.copies:
            raise ConfigError(
                f"num_envs is {num_envs}; it must be a multiple of copies = {self.config.copies}, so that no group "
                "of copies is divided."
            )
        self.num_envs = num_envs
        c = self.config
        self.sources = [Source(d, c.model, c.protocol, c.seed, c.device) for d in c.datasets]
        self._curves = {name: np.asarray(curves) for name, curves in (baseline_curves or {}).items()}
        shape = (len(self.sources), self.config.starts, self.config.protocol.rounds + 1)
        for name, curves in self._curves.items():
            if curves.shape != shape:
                raise ConfigError(f"baseline_curves[{name!r}] has shape {curves.shape}; expected {shape}.")
        batch = self.config.protocol.batch_size
        slots = self.config.candidates.per_pick * batch
        features = len(self.config.features)
        self.single_observation_space = observation_space(slots, features, half=self.half)
        self.observation_space = observation_space(slots, features, num_envs, self.half)
        self.single_action_space = spaces.MultiDiscrete([slots] * batch)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self._finished = True
        self._turn: int | None = None  # none before the first reset

    @property
    def simulation(self) -> Simulation:
        """The simulation that is running."""
        return self.sources[self._source].simulation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Begin E episodes.

        Args:
            seed: decides which starts follow, in this and later resets; they are drawn at random where there never
                was one. All episodes have one seed, as they run in lockstep.
            options: {"starts": [numbers]} names them, E / copies of them; {"source": number} the data set. A
                "reset_mask" must name all episodes, as they run in lockstep.
        """
        if seed is not None:
            super().reset(seed=_seed(seed))
        return self.begin(options, seed is not None)

    def begin(
        self, options: dict[str, Any] | None, seeded: bool
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Begin E episodes, drawn from `np_random`.

        Args:
            seeded: whether that has just been seeded.
        """
        if seeded or self._turn is None:
            self._turn = int(self.np_random.integers(len(self.sources)))
        number, numbers = self._named(options or {})
        if number is None:
            number = self._turn % len(self.sources)
        if numbers is None:
            count = self.num_envs // self.config.copies
            numbers = self.np_random.choice(self.config.starts, count, replace=count > self.config.starts)
        self._source = number
        self._turn += 1
        self._steps = 0
        self._start_numbers = np.repeat(np.asarray(numbers, np.int64), self.config.copies)
        source = self.sources[self._source]
        if source.family:
            source.draw(int(self.np_random.integers(2**31)))
        source.simulation.reset([source.start(int(i)) for i in numbers], self.config.copies)
        self._measured = source.simulation.measure()
        self._smoothed = torch.zeros(self.num_envs)
        self._finished = False
        observation = self._observe()
        return observation, self._infos({}, None)

    def _named(self, options: dict[str, Any]) -> tuple[int | None, np.ndarray | None]:
        """Data set and starts that the options name."""
        for name in options:
            if name not in _OPTIONS:
                raise ValueError(f"options has {name!r}.{nearest(name, _OPTIONS)} It may hold {', '.join(_OPTIONS)}")
        if not np.all(options.get("reset_mask", True)):
            raise ValueError("options['reset_mask'] leaves episodes out; they run in lockstep, so all begin anew")
        number, numbers = options.get("source"), options.get("starts")
        if number is not None and number not in range(len(self.sources)):
            raise ValueError(f"options['source'] is {number!r}; there are {len(self.sources)} data sets, from 0")
        if numbers is not None:
            count, starts = self.num_envs // self.config.copies, self.config.starts
            given = np.asarray(numbers)
            if given.shape != (count,) or given.dtype.kind not in "iu" or ((given < 0) | (given >= starts)).any():
                raise ValueError(f"options['starts'] is {numbers!r}; expected {count} numbers in 0 .. {starts - 1}")
        return number if number is None else int(number), numbers

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict]:
        """Label the picked candidates of every episode and retrain.

        Args:
            actions: [E, b] candidate slots.

        Raises:
            ValueError: where they are no whole numbers of that shape; with `strict` also where one is invalid or
                repeated.
            ResetNeeded: before the first reset, and after an end where autoreset is disabled.
        """
        if self._turn is None or (self._finished and self.autoreset_mode == AutoresetMode.DISABLED):
            raise gym.error.ResetNeeded("no episode is running; call reset() before step()")
        if self._finished:
            observation, infos = self.begin(None, False)
            return observation, np.zeros(self.num_envs), *np.zeros((2, self.num_envs), bool), infos
        slots, replaced = self._read(actions)
        source, simulation, offered = self.sources[self._source], self.simulation, self._offered
        simulation.label(torch.take_along_dim(offered.positions, slots, 1))
        before, self._measured = self._measured, simulation.measure()
        index = simulation.round.index
        baselines = {
            name: torch.from_numpy(curves[self._source, self._start_numbers, index]).to(before.accuracy)
            for name, curves in ({} if source.family else self._curves).items()
        }
        baseline = sum(baselines.values(), torch.zeros_like(before.accuracy)) / max(len(baselines), 1)
        total, terms = reward(Outcome(before, self._measured, simulation.round.weights, baseline), self.config.reward)
        keep = self.config.reward.smoothing
        self._smoothed = keep * self._smoothed + (1.0 - keep) * total.cpu()
        picked = torch.take_along_dim(offered.difficulty, slots, 1).mean(1)
        self._steps += 1
        ends = index == self.config.protocol.rounds
        truncated = np.full(self.num_envs, self._steps == self._limit)
        self._finished = ends or self._steps == self._limit
        # Nobody picks after the last round: its candidates are the last ones that were offered.
        observation = self._arrays() if ends else self._observe()
        named = {f"reward/{k}": v for k, v in terms.items()} | {f"baseline/{k}": v for k, v in baselines.items()}
        infos = self._infos(named, picked) | replaced
        rewards = self._smoothed.numpy().astype(np.float64)
        return observation, rewards, np.full(self.num_envs, ends), truncated, infos

    def action_masks(self) -> np.ndarray:
        """Which slots each entry of an action may name, one entry after the other: bool [E, b * K].

        That they be distinct no mask of single entries can say.
        """
        if self._turn is None:
            raise gym.error.ResetNeeded("call reset() before action_masks()")
        return action_masks(self._offered.valid.cpu().numpy(), self.config.protocol.batch_size)

    def render(self) -> None:
        """There is nothing to see."""

    def _read(self, actions: Any) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
        """Slots [E, b] of distinct valid candidates, and how many were replaced on the way, unless that is refused."""
        valid = self._offered.valid.cpu().numpy()
        slots = read_slots(actions, (self.num_envs, self.config.protocol.batch_size), valid.shape[1])
        infos = {}
        if self.strict:
            check_slots(slots, valid)
        else:
            slots, infos["replaced"] = distinct_slots(slots, valid)
        return torch.as_tensor(slots, device=self._offered.valid.device), infos

    def _observe(self) -> dict[str, np.ndarray]:
        self._offered = offer(
            self.simulation.round, self.config.protocol.batch_size, self.config.candidates, self.config.features
        )
        return self._arrays()

    def _arrays(self) -> dict[str, np.ndarray]:
        """What is offered as fresh arrays: episodes keep them."""
        observation = self._offered.observation(self.half)
        return {k: np.array(v.cpu().numpy(), order="C") for k, v in observation.items()}

    def _infos(self, terms: dict[str, torch.Tensor], picked: torch.Tensor | None) -> dict[str, np.ndarray]:
        m: Measurements = self._measured
        values = {
            "accuracy": m.accuracy,
            "soft_accuracy": m.soft_accuracy,
            "hard_accuracy": m.hard_accuracy,
            "weakest_modality": m.modality_accuracy.amin(1),
            **terms,
        }
        source = self.sources[self._source]
        for i, name in enumerate(source.pool.modalities):
            values[f"accuracy/{name}"] = m.modality_accuracy[:, i]
            values[f"amcb/{name}"] = self.simulation.round.weights[:, i]
        if picked is not None:
            values["difficulty/picked"] = picked
            valid = self._offered.valid
            values["difficulty/offered"] = (self._offered.difficulty * valid).sum(1) / valid.sum(1)
        infos: dict[str, np.ndarray] = {k: v.cpu().numpy().astype(np.float64) for k, v in values.items()}
        infos["start"] = self._start_numbers.copy()
        for name, number in (("source", self._source), ("pool", source.number), ("labels", source.labels)):
            infos[name] = np.full(self.num_envs, number, np.int64)
        return infos


class MultimodalALEnv(gym.Env):
    """One episode; a `VectorMultimodalALEnv` of one, whose docstring gives observation, action and reward.

    Args:
        config, baseline_curves, render_mode: as in `VectorMultimodalALEnv`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's)

    def __init__(
        self,
        config: EnvConfig | Mapping[str, Any] | None = None,
        baseline_curves: Mapping[str, np.ndarray] | None = None,
        *,
        render_mode: str | None = None,
    ):
        self._vector = VectorMultimodalALEnv(
            config, 1, baseline_curves, render_mode=render_mode, autoreset_mode=AutoresetMode.DISABLED
        )
        self.config = self._vector.config
        self.render_mode = None
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode; see `VectorMultimodalALEnv.reset`."""
        super().reset(seed=None if seed is None else _seed(seed))
        self._vector.np_random = self.np_random
        observation, infos = self._vector.begin(options, seed is not None)
        return _first(observation), _first(infos)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Label b samples and retrain."""
        protocol = self.config.protocol
        slots = read_slots(action, (protocol.batch_size,), protocol.batch_size * self.config.candidates.per_pick)
        observation, rewards, terminated, truncated, infos = self._vector.step(slots[None])
        return _first(observation), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first(infos)

    def action_masks(self) -> np.ndarray:
        """Which slots each entry of the action may name, bool [b * K]; see `VectorMultimodalALEnv.action_masks`."""
        return self._vector.action_masks()[0]

    def render(self) -> None:
        """There is nothing to see."""


def _count(name: str, value: object) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number, at least 1.")
    return int(value)


def _autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    possible = {m.value: m for m in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED)}
    found = possible.get(str(getattr(mode, "value", mode)))
    if found is None:
        raise ConfigError(f"autoreset_mode is {mode!r}; it must be one of {', '.join(possible)}.")
    return found


def _seed(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ValueError(f"seed is {value!r}; it must be one whole number of at least 0")
    return int(value)


def _first(batched: dict[str, np.ndarray]) -> dict[str, Any]:
    return {k: v[0] for k, v in batched.items()}
