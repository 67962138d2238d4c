"""Multimodal active learning as a Gymnasium environment: one step is one round of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
from annotated_types import Ge
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from envs.candidates import (
    DEFAULT_FEATURES,
    CandidateConfig,
    Candidates,
    check_features,
    observation_space,
    offer,
)
from envs.errors import ConfigError
from envs.fields import Section
from envs.models.base import TaskModelConfig
from envs.models.frozen.trainer import FrozenConfig
from envs.rewards import Outcome, RewardConfig, reward
from envs.simulation import Measurements, ProtocolConfig, Simulation
from envs.source import Source


@dataclass(frozen=True)
class EnvConfig(Section, prefix="env."):
    """Everything that decides an environment."""

    datasets: tuple[str, ...] = ("emoji",)  # names, paths or families; an episode runs on one of them
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    model: TaskModelConfig = field(default_factory=FrozenConfig)
    candidates: CandidateConfig = field(default_factory=CandidateConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    features: tuple[str, ...] = DEFAULT_FEATURES
    starts: Annotated[int, Ge(1)] = 64  # distinct episode starts per data set
    copies: Annotated[int, Ge(1)] = 1  # G, episodes that share a start (vector environment only)
    seed: Annotated[int, Ge(0)] = 0  # decides the starts
    device: str = "cpu"  # a torch device, or "auto": the GPU that this process may use, else the CPU

    def __post_init__(self) -> None:
        super().__post_init__()
        check_features(self.features)
        if not self.datasets:
            raise ConfigError("No data set is given; name at least one.")


class VectorMultimodalALEnv(VectorEnv):
    """E episodes in lockstep.

    Observation (each with a leading E):
        features: float16 [K, F], the named static features of each candidate, rank-normalised to [-1, 1]
        gradient: float16 [K, 64], sketch of its gradient embedding
        hidden: float16 [K, 32], sketch of its normalised hidden features
        labelled_distance: float16 [K], to the nearest labelled sample
        predicted: int16 [K], predicted class
        valid: int8 [K], 0 where the slot is empty
        state: float32 [S], one entry for each of `envs.candidates.STATE`
    Action: int64 [b], slots of distinct valid candidates, in the order of picking.
    Reward: float, the weighted terms of `envs.rewards`, measured on rows outside the pool.
    Termination: after T = protocol.rounds steps. Truncation never happens.
    Autoreset: NEXT_STEP; the step after a termination ignores its action and returns the first observation.
    Info: arrays [E]: `start` and `source` (numbers), `pool` (which one of a family, else 0), `labels` (of the pool's
        policy half), accuracy, soft_accuracy, hard_accuracy, weakest_modality, `accuracy/<modality>` and
        `amcb/<modality>`; after a step also `reward/<term>`, `baseline/<strategy>`, `difficulty/picked` and
        `difficulty/offered`.

    Of a family (`synthetic-family`, see `envs.sources.synthetic.draw_spec`) every reset draws another pool.

    Args:
        config: an EnvConfig, or a mapping of its fields.
        num_envs: E, a multiple of config.copies.
        baseline_curves: strategy -> accuracy [sources, config.starts, T + 1], by round from 0; relative_accuracy is
            relative to their mean, without any to nothing. A family has none, and its entries are not looked at.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012 (gymnasium's)

    def __init__(
        self,
        config: EnvConfig | Mapping[str, Any] | None = None,
        num_envs: int = 1,
        baseline_curves: Mapping[str, np.ndarray] | None = None,
    ):
        self.config = config if isinstance(config, EnvConfig) else EnvConfig(**(config or {}))
        if num_envs % self.config.copies:
            raise ConfigError(
                f"num_envs is {num_envs}; it must be a multiple of copies = {self.config.copies}, so that no group "
                "of copies is divided."
            )
        self.num_envs = num_envs
        c = self.config
        self.sources = [Source(d, c.model, c.protocol, c.seed, c.device) for d in c.datasets]
        self._curves = dict(baseline_curves or {})
        shape = (len(self.sources), self.config.starts, self.config.protocol.rounds + 1)
        for name, curves in self._curves.items():
            if curves.shape != shape:
                raise ConfigError(f"baseline_curves[{name!r}] has shape {curves.shape}; expected {shape}.")
        batch = self.config.protocol.batch_size
        slots = self.config.candidates.per_pick * batch
        self.single_observation_space = observation_space(slots, len(self.config.features))
        self.observation_space = observation_space(slots, len(self.config.features), num_envs)
        self.single_action_space = spaces.MultiDiscrete([slots] * batch)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, num_envs)
        self._rng = np.random.default_rng(self.config.seed)
        self._finished = True
        self._turn = 0

    @property
    def simulation(self) -> Simulation:
        """The simulation that is running."""
        return self.sources[self._source].simulation

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Begin E episodes.

        Args:
            seed: decides which starts follow, in this and later resets.
            options: {"starts": [numbers]} names them, E / copies of them; {"source": number} the data set.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
            self._turn = int(self._rng.integers(len(self.sources)))
        options = options or {}
        number = int(options.get("source", self._turn % len(self.sources)))
        if not 0 <= number < len(self.sources):
            raise ValueError(f"options['source'] is {number}; there are {len(self.sources)} data sets, from 0")
        count = self.num_envs // self.config.copies
        numbers = options.get("starts")
        if numbers is None:
            numbers = self._rng.choice(self.config.starts, count, replace=count > self.config.starts)
        elif len(numbers) != count or not all(0 <= n < self.config.starts for n in numbers):
            raise ValueError(
                f"options['starts'] is {list(numbers)}; expected {count} numbers in 0 .. {self.config.starts - 1}"
            )
        self._source = number
        self._turn += 1
        self._start_numbers = np.repeat(np.asarray(numbers, np.int64), self.config.copies)
        source = self.sources[self._source]
        if source.family:
            source.draw(int(self._rng.integers(2**31)))
        source.simulation.reset([source.start(int(i)) for i in numbers], self.config.copies)
        self._measured = source.simulation.measure()
        self._smoothed = torch.zeros(self.num_envs)
        self._finished = False
        observation = self._observe()
        return observation, self._infos({}, None)

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict]:
        """Label the picked candidates of every episode and retrain.

        Args:
            actions: [E, b] candidate slots.

        Raises:
            ValueError: where a slot is invalid or repeated.
        """
        zeros, no = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        if self._finished:
            observation, infos = self.reset()
            return observation, zeros, no, no.copy(), infos
        slots = torch.as_tensor(np.asarray(actions, np.int64), device=self._offered.valid.device)
        expected = (self.num_envs, self.config.protocol.batch_size)
        if slots.shape != expected:
            raise ValueError(f"actions have shape {list(slots.shape)}; expected {list(expected)}")
        last = self._offered.valid.shape[1] - 1
        if bool(((slots < 0) | (slots > last)).any()):
            raise ValueError(f"an action names a slot outside 0 .. {last}: {int(slots.min())} or {int(slots.max())}")
        if not bool(torch.take_along_dim(self._offered.valid, slots, 1).all()):
            raise ValueError("an action names a candidate slot whose 'valid' is 0")
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
        self._finished = index == self.config.protocol.rounds
        # Nobody picks after the last round: its candidates are the last ones that were offered.
        observation = _to_numpy(offered) if self._finished else self._observe()
        done = np.full(self.num_envs, self._finished)
        named = {f"reward/{k}": v for k, v in terms.items()} | {f"baseline/{k}": v for k, v in baselines.items()}
        infos = self._infos(named, picked)
        return observation, self._smoothed.numpy().astype(np.float64), done, no, infos

    def _observe(self) -> dict[str, np.ndarray]:
        self._offered = offer(
            self.simulation.round, self.config.protocol.batch_size, self.config.candidates, self.config.features
        )
        return _to_numpy(self._offered)

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

    An action may name a slot twice or an invalid one (any sampler of the action space does): each such entry is
    replaced by the first valid candidate that the action leaves free, and `info["replaced"]` counts them.

    Args:
        config: an EnvConfig, or a mapping of its fields.
        baseline_curves: as in `VectorMultimodalALEnv`.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's)

    def __init__(
        self,
        config: EnvConfig | Mapping[str, Any] | None = None,
        baseline_curves: Mapping[str, np.ndarray] | None = None,
    ):
        self._vector = VectorMultimodalALEnv(config, 1, baseline_curves)
        self._valid: np.ndarray | None = None
        self.config = self._vector.config
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode; see `VectorMultimodalALEnv.reset`."""
        super().reset(seed=seed)
        observation, infos = self._vector.reset(seed=seed, options=options)
        self._valid = observation["valid"][0] > 0
        return _first(observation), _first(infos)

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Label b samples and retrain."""
        if self._valid is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        slots, replaced = distinct_slots(np.asarray(action), self._valid)
        observation, rewards, terminated, truncated, infos = self._vector.step(slots[None])
        self._valid = observation["valid"][0] > 0
        info = _first(infos) | {"replaced": replaced}
        return _first(observation), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info


def distinct_slots(action: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, int]:
    """The action [b] with repeated and invalid slots replaced by the first free valid ones, and their number."""
    slots = action.astype(np.int64).copy()
    _, first = np.unique(slots, return_index=True)
    bad = np.ones(len(slots), bool)
    bad[first] = False
    outside = (slots < 0) | (slots >= len(valid))
    bad |= outside | ~valid[np.where(outside, 0, slots)]
    free = valid.copy()
    free[slots[~bad]] = False
    slots[bad] = np.flatnonzero(free)[: bad.sum()]
    return slots, int(bad.sum())


def _first(batched: dict[str, np.ndarray]) -> dict[str, Any]:
    return {k: v[0] for k, v in batched.items()}


def _to_numpy(offered: Candidates) -> dict[str, np.ndarray]:
    """Fresh arrays: episodes keep them."""
    return {k: np.array(v.cpu().numpy(), order="C") for k, v in offered.observation().items()}
