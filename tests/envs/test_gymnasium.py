"""What Gymnasium's interface promises to any library: types, arguments, seeds, ends, settings as mappings."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import envs  # registers the environment  # noqa: F401
from envs.errors import ConfigError
from envs.models.frozen.trainer import FrozenConfig
from envs.multimodal_al import EnvConfig, MultimodalALEnv, VectorMultimodalALEnv
from envs.simulation import ProtocolConfig
from tests.support.environment import CONFIG, NAME, SMALL, B, K, T, config
from tests.support.paths import ROOT

MODES = ["vector_entry_point", "sync", "async"]


def made(mode: str | None, **arguments: Any) -> Any:
    """A single environment, or two by one of the ways to get many."""
    arguments = {"config": SMALL} | arguments
    if mode is None:
        return gym.make(NAME, **arguments)
    return gym.make_vec(NAME, num_envs=2, vectorization_mode=mode, **arguments)


# Every entry point


@pytest.mark.parametrize("mode", [None, *MODES])
def test_whatever_is_sampled_is_played_to_the_end_and_beyond(mode: str | None) -> None:
    env = made(mode, render_mode=None)
    env.action_space.seed(1)
    observation, _ = env.reset(seed=0)
    replaced = 0
    for t in range(1, 2 * T + 2):
        assert env.observation_space.contains(observation)
        assert not any(array.dtype == np.float16 for array in observation.values())
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        replaced += np.sum(info.get("replaced", 0))
        assert np.isfinite(reward).all()
        assert np.all(terminated == (t % (T + 1) == T))
        assert not np.any(truncated)
        if mode is None and terminated:
            with pytest.raises(gym.error.ResetNeeded):
                env.step(env.action_space.sample())
            observation, _ = env.reset()
            if t == T:
                break
    assert replaced > 0
    assert env.render_mode is None
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_the_ways_to_get_many_agree(mode: str) -> None:
    env = made(mode)
    assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    assert getattr(env.unwrapped, "autoreset_mode", AutoresetMode.NEXT_STEP) == AutoresetMode.NEXT_STEP
    assert env.single_action_space == gym.spaces.MultiDiscrete([K] * B)
    assert env.action_space.shape == (2, B)
    spaces = made(None).observation_space
    assert env.single_observation_space == spaces
    assert {name: space.dtype for name, space in env.single_observation_space.items()} == {
        "features": np.float32, "gradient": np.float32, "hidden": np.float32, "fisher": np.float32,
        "input": np.float32, "input_distance": np.float32, "uncertainty": np.float32, "labelled_distance": np.float32,
        "predicted": np.int16, "valid": np.int8, "state": np.float32,
    }  # fmt: skip
    env.close()


def test_a_repeated_slot_is_repaired_alike_in_both() -> None:
    single, vector = MultimodalALEnv(CONFIG), VectorMultimodalALEnv(CONFIG, 1)
    single.reset(seed=3)
    vector.reset(seed=3)
    action = np.array([7, 7, 1, 7])
    one, many = single.step(action), vector.step(action[None])
    assert (one[1], one[4]["replaced"]) == (many[1][0], many[4]["replaced"][0]) == (one[1], 2)
    for name, array in one[0].items():
        np.testing.assert_array_equal(array, many[0][name][0])


def test_gymnasiums_checker_is_content() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*Box observation space.*")
        check_env(MultimodalALEnv(CONFIG), skip_render_check=True)


# Constructor arguments


@pytest.mark.parametrize("mode", [None, "vector_entry_point"])
@pytest.mark.parametrize("render_mode", ["human", "rgb_array", ""])
def test_there_is_nothing_to_see(mode: str | None, render_mode: str) -> None:
    with warnings.catch_warnings(), pytest.raises(ConfigError, match=f"render_mode is '{render_mode}'.*leave it out"):
        warnings.simplefilter("ignore")
        made(mode, render_mode=render_mode)
    assert made(mode).unwrapped.render() is None


@pytest.mark.parametrize("mode", [None, *MODES])
@pytest.mark.parametrize(("limit", "ends"), [(2, 2), (T, T), (T + 5, T)])
def test_a_limit_of_steps_truncates(mode: str | None, limit: int, ends: int) -> None:
    env = made(mode, max_episode_steps=limit)
    env.action_space.seed(1)
    env.reset(seed=0)
    for t in range(1, ends + 1):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        assert np.all(terminated == (t == T))
        assert np.all(truncated == (t == limit))
    if mode is not None:
        _, rewards, terminated, truncated, infos = env.step(env.action_space.sample())
        assert not (rewards.any() or terminated.any() or truncated.any() or "replaced" in infos)
        assert not env.step(env.action_space.sample())[3].any()
    env.close()


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2", None])
def test_how_many_is_a_whole_number(number: Any) -> None:
    with pytest.raises(ConfigError, match=r"num_envs is .*; it must be a whole number, at least 1"):
        VectorMultimodalALEnv(CONFIG, number)
    if number is not None:
        with pytest.raises(ConfigError, match=r"max_episode_steps is .*; it must be a whole number, at least 1"):
            VectorMultimodalALEnv(CONFIG, 1, max_episode_steps=number)


# Settings as mappings


def test_a_nested_mapping_is_the_configuration() -> None:
    expected = EnvConfig(
        datasets=CONFIG.datasets,
        protocol=ProtocolConfig(8, B, T),
        model=FrozenConfig(hidden=8, steps=8),
        candidates=CONFIG.candidates,
        starts=5,
    )
    assert EnvConfig.of(SMALL) == EnvConfig.of(expected) == expected
    assert EnvConfig.of(None) == EnvConfig.of({}) == EnvConfig()
    assert EnvConfig.of(SMALL | {"protocol": ProtocolConfig(8, B, T)}) == expected
    assert gym.make(NAME, config=SMALL).unwrapped.config == expected


class Own(FrozenConfig):
    """A task model of a user's."""


def test_a_task_model_of_ones_own_is_taken_as_it_is() -> None:
    own = Own(hidden=8)
    assert EnvConfig.of({"model": own}).model is own
    assert EnvConfig(model=own).model is own


def test_specs_of_mappings_are_written_and_read() -> None:
    env = gym.make(NAME, config=SMALL)
    text = env.spec.to_json()
    again = gym.make(gym.envs.registration.EnvSpec.from_json(text))
    assert again.unwrapped.config == env.unwrapped.config
    assert json.loads(text)["kwargs"]["config"] == SMALL
    json.loads(made("vector_entry_point").spec.to_json())


def test_a_process_that_knows_only_gymnasium_finds_it_by_its_full_name(tmp_path: Path) -> None:
    code = f"""
import gymnasium as gym
if __name__ == "__main__":
    gym.make("envs:{NAME}", config={SMALL!r}).reset(seed=0)
    many = gym.make_vec("envs:{NAME}", num_envs=2, vectorization_mode="async", config={SMALL!r},
                        vector_kwargs={{"context": "spawn"}})
    print(many.reset(seed=0)[0]["features"].dtype)
    many.close()
"""
    (tmp_path / "play.py").write_text(code)
    command = [sys.executable, str(tmp_path / "play.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.stdout.split() == ["float32"], done.stderr


WRONG: list[tuple[Any, str]] = [
    ({"datasets": "emoji"}, r"env\.datasets is 'emoji'; it must be a list: write \['emoji'\]"),
    ({"datasets": 5}, r"env\.datasets is 5; it must be a list"),
    ({"datasets": []}, "No data set is given"),
    ({"features": "margin"}, r"env\.features is 'margin'; it must be a list: write \['margin'\]"),
    ({"features": ["margins"]}, "Did you mean 'margin'"),
    ({"dataset": ["digits"]}, "Unknown setting 'dataset'. Did you mean 'datasets'"),
    ({"protocol": {"round": 3}}, r"Unknown setting 'protocol\.round'. Did you mean 'rounds'"),
    ({"protocol": {"rounds": 0}}, r"protocol\.rounds is 0; it must be at least 1"),
    ({"protocol": {"rounds": "three"}}, r"protocol\.rounds is 'three'; it must be a whole number"),
    ({"protocol": {"rounds": True}}, r"protocol\.rounds is True; it must be a whole number"),
    ({"protocol": 3}, "protocol must be a mapping of names to values, not 3"),
    ({"protocol": None}, "protocol must be a mapping of names to values, not None"),
    ({"protocol": FrozenConfig()}, "protocol must be a mapping of names to values"),
    ({"model": "frozen"}, "model must be a mapping of names to values, not 'frozen'"),
    ({"model": {"hiden": 8}}, r"Unknown setting 'model\.hiden'. Did you mean 'hidden'"),
    ({"seed": -1}, r"env\.seed is -1; it cannot be negative"),
    ({"copies": 0}, r"env\.copies is 0; it must be at least 1"),
    ({"device": "cua"}, r"env\.device is 'cua', which torch cannot use here .*; write 'cpu' or 'auto'"),
    ({"device": "cuda:99"}, r"env\.device is 'cuda:99', which torch cannot use here"),
    ({5: 1}, "Unknown setting '5'"),
    ("digits", "The settings must be a mapping of names to values, not 'digits'"),
    (["digits"], r"The settings must be a mapping of names to values, not \['digits'\]"),
    (0, "The settings must be a mapping of names to values, not 0"),
]


@pytest.mark.parametrize("mode", [None, "vector_entry_point"])
@pytest.mark.parametrize(("settings", "words"), WRONG)
def test_mistakes_in_settings_are_named_with_their_remedy(mode: str | None, settings: Any, words: str) -> None:
    whole = SMALL | settings if isinstance(settings, dict) else settings
    with pytest.raises(ConfigError, match=words):
        made(mode, config=whole)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"datasets": "emoji"}, r"env\.datasets is 'emoji'; it must be a list: write \['emoji'\]"),
        ({"datasets": (5,)}, r"env\.datasets is \(5,\); 5 in it is no text: write '5'"),
        ({"protocol": {"rounds": 3}}, r"env\.protocol is {'rounds': 3}; it must be a ProtocolConfig"),
        ({"model": {"steps": 3}}, r"env\.model is {'steps': 3}; it must be a FrozenConfig or another dataclass"),
        ({"model": FrozenConfig}, r"it must be a FrozenConfig or another dataclass"),
    ],
)
def test_the_dataclass_itself_refuses_the_same(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EnvConfig(**fields)


# Seeds and options


def starts(env: Any, resets: int = 6) -> list[int]:
    return [int(np.ravel(env.reset()[1]["start"])[0]) for _ in range(resets)]


@pytest.mark.parametrize("make", [MultimodalALEnv, lambda c: VectorMultimodalALEnv(c, 1)])
def test_unseeded_is_random_and_seeded_is_not(make: Callable[[EnvConfig], Any]) -> None:
    many = config(starts=64)
    assert len({tuple(starts(make(many))) for _ in range(4)}) == 4
    found = []
    for _ in range(2):
        env = make(many)
        env.reset(seed=5)
        assert env.np_random_seed == 5
        found.append((starts(env), env.np_random.integers(10**9)))
    assert found[0] == found[1]


def test_a_generator_that_is_put_in_is_used() -> None:
    many = config(starts=64)
    for env in (MultimodalALEnv(many), VectorMultimodalALEnv(many, 1)):
        drawn = []
        for _ in range(2):
            env.reset(seed=1)
            env.np_random = np.random.default_rng(9)
            drawn.append(starts(env))
        env.reset(seed=1)
        assert drawn[0] == drawn[1] != starts(env)


@pytest.mark.parametrize("seed", [-1, 1.5, "7", [1, 2], True])
def test_a_seed_is_one_whole_number(seed: Any) -> None:
    for env in (MultimodalALEnv(CONFIG), VectorMultimodalALEnv(CONFIG, 2)):
        with pytest.raises(ValueError, match=r"seed is .*; it must be one whole number of at least 0"):
            env.reset(seed=seed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"start": [0]}, "options has 'start'. Did you mean 'starts'"),
        ({"starts": 0}, r"options\['starts'\] is 0; expected 1 numbers"),
        ({"starts": [0.5]}, r"options\['starts'\] is \[0.5\]"),
        ({"starts": ["0"]}, r"options\['starts'\] is \['0'\]"),
        ({"source": 1}, r"options\['source'\] is 1; there are 1 data sets"),
        ({"source": 0.5}, r"options\['source'\] is 0.5"),
        ({"source": "emoji"}, r"options\['source'\] is 'emoji'"),
    ],
)
def test_options_are_used_or_refused(options: dict[str, Any], words: str) -> None:
    for env in (MultimodalALEnv(CONFIG), VectorMultimodalALEnv(CONFIG, 1)):
        with pytest.raises(ValueError, match=words):
            env.reset(seed=0, options=options)


# Steps


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, "Disabled"])
def test_without_autoreset_the_end_is_the_end(mode: Any) -> None:
    env = made("vector_entry_point", autoreset_mode=mode)
    assert env.autoreset_mode == env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert VectorMultimodalALEnv.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    env.reset(seed=0)
    for _ in range(T):
        env.step(env.action_space.sample())
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())
    with pytest.raises(ValueError, match=r"reset_mask.*lockstep"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(options={"reset_mask": np.array([True, True])})
    assert not env.step(env.action_space.sample())[2].any()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, "SameStep", "next", None, []])
def test_another_autoreset_is_refused(mode: Any) -> None:
    with pytest.raises(ConfigError, match=r"autoreset_mode is .*; it must be one of NextStep, Disabled"):
        VectorMultimodalALEnv(CONFIG, 2, autoreset_mode=mode)


@pytest.mark.parametrize("mode", [None, "vector_entry_point"])
def test_before_a_reset_there_is_nothing_to_step_or_to_mask(mode: str | None) -> None:
    env = made(mode).unwrapped
    for call in (lambda: env.step(env.action_space.sample()), env.action_masks):
        with pytest.raises(gym.error.ResetNeeded):
            call()


@pytest.mark.parametrize("action", [np.full(B, np.nan), 3, None, [[0, 1, 2, 3]], [0, 1, 2], "abcd", [0.5, 1, 2, 3]])
def test_what_is_no_action_changes_nothing(action: Any) -> None:
    env, other = MultimodalALEnv(CONFIG), MultimodalALEnv(CONFIG)
    for one in (env, other):
        one.reset(seed=0)
    with pytest.raises(ValueError, match="the action"):
        env.step(action)
    assert env.step(np.arange(B))[1] == other.step(np.arange(B))[1]


def test_masks_say_what_is_valid() -> None:
    vector = VectorMultimodalALEnv(CONFIG, 2)
    observations, _ = vector.reset(seed=0)
    assert vector.action_masks().shape == (2, B * K)
    np.testing.assert_array_equal(vector.action_masks(), np.tile(observations["valid"] > 0, B))
    single = MultimodalALEnv(EnvConfig.of(SMALL | {"candidates": {"per_pick": 40}}))
    observation, _ = single.reset(seed=0)
    masks = single.action_masks()
    assert masks.dtype == bool
    assert 0 < masks.sum() < len(masks)
    np.testing.assert_array_equal(masks, np.tile(observation["valid"] > 0, B))
    assert single.action_space.contains(single.action_space.sample(mask=tuple(np.split(masks.astype(np.int8), B))))


def test_copies_and_pickles_go_on_alike() -> None:
    env = MultimodalALEnv(CONFIG)
    env.reset(seed=2)
    env.step(np.arange(B))
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert twin.step(np.arange(B))[1] == copy.deepcopy(env).step(np.arange(B))[1]
        assert starts(twin) == starts(copy.deepcopy(env))
