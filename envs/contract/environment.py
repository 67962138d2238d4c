"""The contract of the environments, as a check that anybody can run on a configuration of their own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from envs.errors import ContractError
from envs.multimodal_al import EnvConfig, MultimodalALEnv, VectorMultimodalALEnv
from envs.rewards import TERMS

_COPIES = 2
_EPISODES = 4
_ALWAYS = frozenset(
    ("accuracy", "soft_accuracy", "hard_accuracy", "weakest_modality", "start", "source", "pool", "labels")
)
_AFTER_A_STEP = frozenset(("difficulty/picked", "difficulty/offered", *(f"reward/{term}" for term in TERMS)))

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class _Step:
    """What a reset or a step returns."""

    place: str
    observations: Arrays
    infos: Arrays
    outcome: Arrays  # rewards, terminated, truncated; empty for a reset

    def arrays(self) -> Arrays:
        """All of it under names for messages."""
        observed = {f"observation['{k}']": v for k, v in self.observations.items()}
        return observed | {f"info['{k}']": v for k, v in self.infos.items()} | self.outcome


def check_environment(config: EnvConfig | Mapping[str, Any] | None = None) -> None:
    """Check that the environments of a configuration keep their contract.

    Plays ten or so episodes, so give it a configuration of few rounds. The single environment must pass Gymnasium's
    `check_env`. In the vector environment observations, rewards and infos must have their shapes and types and be
    finite, every member of the action space is taken, copies share their start, equal seeds give equal episodes (also
    in another instance), episodes end after `protocol.rounds` steps and never are truncated, the step after the end
    ignores its action and begins anew, and no array that was handed out may be written again.

    Raises:
        ContractError: naming what is violated, and where.
    """
    config = EnvConfig.of(config)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Box observation space.*")
        try:
            check_env(MultimodalALEnv(config), skip_render_check=True)
        except (AssertionError, gym.error.Error) as error:
            raise ContractError(f"Gymnasium's check_env refuses the environment: {error}") from error
    env, other = (VectorMultimodalALEnv(replace(config, copies=_COPIES), _EPISODES) for _ in range(2))
    for place, mode in (
        ("metadata['autoreset_mode']", env.metadata.get("autoreset_mode")),
        ("autoreset_mode", env.autoreset_mode),
    ):
        if mode != AutoresetMode.NEXT_STEP:
            raise ContractError(f"{place} is {mode}, not NEXT_STEP.")
    first, kept = [], []
    for step in _play(env, seed=7):
        _check_step(env, step)
        first.append(step)
        kept.append({name: array.copy() for name, array in step.arrays().items()})
    _check_copies(first)
    for step, expected in zip(first, kept, strict=True):
        _require_equal(step.arrays(), expected, f"was written again after it was handed out {step.place}")
    _check_members(env)
    for again, words in ((env, "the same environment"), (other, "another environment of the same configuration")):
        for step, expected in zip(_play(again, seed=7), kept, strict=True):
            _require_equal(step.arrays(), expected, f"differs between two runs of {words} from one seed {step.place}")


def _play(env: VectorMultimodalALEnv, seed: int) -> Iterator[_Step]:
    """An episode, the step that begins the next one, and a step of that; copies pick alike."""
    rounds = env.config.protocol.rounds
    observations, infos = env.reset(seed=seed)
    yield _Step("at reset", observations, infos, {})
    for t in range(1, rounds + 3):
        rng = np.random.default_rng(t)
        batch = env.config.protocol.batch_size
        order = rng.permutation(observations["valid"].shape[1])
        actions = np.stack([order[valid[order] > 0][:batch] for valid in observations["valid"]])
        if t == rounds + 1:
            actions = np.full_like(actions, -1)  # an action that nobody may look at
        try:
            observations, rewards, terminated, truncated, infos = env.step(actions)
        except ValueError as error:
            raise ContractError(f"A valid action is refused at step {t}: {error}.") from error
        outcome = {"rewards": rewards, "terminated": terminated, "truncated": truncated}
        yield _Step(f"at step {t}", observations, infos, outcome)
        ended = np.full(env.num_envs, t == rounds)
        _require_equal({"terminated": terminated}, {"terminated": ended}, f"should be {ended.tolist()} at step {t}")
        if t == rounds + 1 and rewards.any():
            raise ContractError(f"The step after the end gives rewards {rewards.tolist()}, not 0.")


def _check_members(env: VectorMultimodalALEnv) -> None:
    """Check that the environment takes a member of its action space that no policy of ours would give."""
    env.reset(seed=7)
    try:
        infos = env.step(np.zeros(env.action_space.shape or (), np.int64))[4]
    except ValueError as error:
        raise ContractError(f"A member of the action space is refused: {error}.") from error
    expected = env.config.protocol.batch_size - 1
    if np.asarray(infos.get("replaced")).tolist() != [expected] * env.num_envs:
        raise ContractError(f"info['replaced'] is {infos.get('replaced')} for one slot throughout, not {expected}.")


def _check_observation(env: VectorMultimodalALEnv, step: _Step) -> None:
    """Check that the observations are what the space says, exactly in type and shape."""
    if not isinstance(env.single_observation_space, spaces.Dict):
        raise ContractError(f"The observation space is a {type(env.single_observation_space).__name__}, not a Dict.")
    for name, space in env.single_observation_space.items():
        array = step.observations.get(name)
        shape = (env.num_envs, *(space.shape or ()))
        if array is None or array.dtype != space.dtype or array.shape != shape:
            got = "nothing" if array is None else f"{array.dtype} {list(array.shape)}"
            raise ContractError(f"observation['{name}'] is {got} {step.place}; expected {space.dtype} {list(shape)}.")
    if not env.observation_space.contains(step.observations):
        raise ContractError(f"The observation is outside its space {step.place}.")


def _check_step(env: VectorMultimodalALEnv, step: _Step) -> None:
    """Check names, shapes, types and ranges."""
    _check_observation(env, step)
    types = {"rewards": np.float64, "terminated": np.bool_, "truncated": np.bool_}
    for name, array in step.arrays().items():
        if not isinstance(array, np.ndarray) or array.shape[:1] != (env.num_envs,):
            raise ContractError(f"{name} is no array of {env.num_envs} episodes {step.place}.")
        if array.dtype != types.get(name, array.dtype):
            raise ContractError(f"{name} is {array.dtype} {step.place}; expected {np.dtype(types[name])}.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ContractError(f"{name} is not finite {step.place}.")
    # A step that begins an episode tells what a reset does.
    begins = not step.outcome or step.place == f"at step {env.config.protocol.rounds + 1}"
    missing = (_ALWAYS if begins else _ALWAYS | _AFTER_A_STEP) - set(step.infos)
    if missing:
        raise ContractError(f"info lacks {', '.join(sorted(missing))} {step.place}.")
    if step.outcome and step.outcome["truncated"].any():
        raise ContractError(f"An episode is truncated {step.place}; budgets end, time limits do not exist.")


def _check_copies(steps: list[_Step]) -> None:
    """Check that copies agree before they pick, and after they have picked alike."""
    for name, array in steps[0].arrays().items():
        if not np.array_equal(array[1::_COPIES], array[::_COPIES]):
            raise ContractError(f"{name} differs between copies of a start {steps[0].place}.")
    accuracy = steps[1].infos["soft_accuracy"]
    if not np.allclose(accuracy[1::_COPIES], accuracy[::_COPIES], atol=1e-4):
        raise ContractError(f"Copies that pick alike get other task models: soft accuracies {accuracy.tolist()}.")


def _require_equal(arrays: Arrays, expected: Arrays, violation: str) -> None:
    if set(arrays) != set(expected):
        raise ContractError(f"{', '.join(sorted(set(arrays) ^ set(expected)))} {violation}.")
    for name, array in arrays.items():
        if not np.array_equal(array, expected[name]):
            raise ContractError(f"{name} {violation}.")
