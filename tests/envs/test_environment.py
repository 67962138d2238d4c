"""The environments: autoreset, pairing, reward."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import envs  # registers the environment  # noqa: F401
from envs.candidates import OBSERVATION, CandidateConfig
from envs.errors import ConfigError
from envs.multimodal_al import MultimodalALEnv, VectorMultimodalALEnv
from envs.rewards import TERMS, RewardConfig
from envs.simulation import ProtocolConfig
from tests.support.environment import ACCURACY_ALONE, CONFIG, STARTS, B, K, T, config, slots


def assert_equal(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> None:
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


# One episode


def test_a_walk_through_an_episode() -> None:
    env = MultimodalALEnv(CONFIG)
    env.action_space.seed(0)
    observation, info = env.reset(seed=3)
    always = {"accuracy", "soft_accuracy", "hard_accuracy", "weakest_modality", "start", "source", "pool", "labels",
              "accuracy/m0", "accuracy/m1", "amcb/m0", "amcb/m1"}  # fmt: skip
    assert set(info) == always
    later = always | {f"reward/{t}" for t in TERMS} | {"difficulty/picked", "difficulty/offered", "replaced"}
    for t in range(1, T + 1):
        assert set(observation) == set(OBSERVATION)
        assert env.observation_space.contains(observation)
        assert observation["state"][0] == pytest.approx(min((t - 1) / (T - 1), 1.0))
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert set(info) == later
        assert isinstance(reward, float)
        assert np.isfinite(reward)
        assert (terminated, truncated) == (t == T, False)
        assert 0 <= info["accuracy"] <= 1
        assert info["amcb/m0"] + info["amcb/m1"] == pytest.approx(1.0)
    assert env.observation_space.contains(observation)


def test_sampled_actions_are_repaired_and_counted() -> None:
    env = MultimodalALEnv(CONFIG)
    env.reset(seed=0)
    assert env.step(np.array([1, 2, 3, 4]))[4]["replaced"] == 0
    assert env.step(np.array([7, 7, 7, 8]))[4]["replaced"] == 2
    small = config(datasets=("synthetic:samples=160,classes=4,modalities=2,dim=4,seed=1",),
                   candidates=CandidateConfig(per_pick=40))  # fmt: skip
    env = MultimodalALEnv(small)
    observation, _ = env.reset(seed=0)
    assert observation["valid"][-1] == 0
    assert env.step(np.array([0, 1, 159, 158]))[4]["replaced"] == 2


# Many episodes


def test_the_vector_of_one_is_the_single_environment() -> None:
    single, vector = MultimodalALEnv(CONFIG), VectorMultimodalALEnv(CONFIG, 1)
    observation, info = single.reset(seed=11)
    observations, infos = vector.reset(seed=11)
    for t in range(T):
        assert_equal(observation, {k: v[0] for k, v in observations.items()})
        assert_equal(info, {k: v[0] for k, v in infos.items()})
        action = slots(t, 1)
        observation, reward, terminated, _, info = single.step(action[0])
        observations, rewards, done, _, infos = vector.step(action)
        assert (reward, terminated) == (rewards[0], done[0])


def test_the_step_after_the_end_begins_the_next_episodes() -> None:
    env, other = VectorMultimodalALEnv(CONFIG, 2), VectorMultimodalALEnv(CONFIG, 2)
    env.reset(seed=5)
    other.reset(seed=5)
    for t in range(T):
        _, _, terminated, _, _ = env.step(slots(t, 2))
        assert terminated.tolist() == [t == T - 1] * 2
    expected, expected_infos = other.reset()
    observations, rewards, terminated, truncated, infos = env.step(np.full((2, B), 10**6))  # ignored
    assert_equal(observations, expected)
    assert_equal(infos, expected_infos)
    assert rewards.tolist() == [0.0, 0.0]
    assert not terminated.any()
    assert not truncated.any()
    assert env.step(slots(9, 2))[2].tolist() == [False, False]


def test_copies_share_everything_but_their_picks() -> None:
    env = VectorMultimodalALEnv(config(copies=3), 6)
    observations, infos = env.reset(seed=1)
    assert infos["start"].tolist() == np.repeat(infos["start"][::3], 3).tolist()
    assert infos["start"][0] != infos["start"][3]
    for group in (slice(0, 3), slice(3, 6)):
        for name, value in {**observations, **infos}.items():
            np.testing.assert_array_equal(value[group], value[[group.start] * 3], err_msg=name)
    # The same picks in the same start have the same outcome; other picks another.
    actions = slots(0, 6)
    actions[1] = actions[0]
    _, rewards, _, _, infos = env.step(actions)
    assert rewards[0] == rewards[1]
    assert infos["soft_accuracy"][0] == pytest.approx(infos["soft_accuracy"][1], abs=1e-6)
    assert infos["soft_accuracy"][0] != pytest.approx(infos["soft_accuracy"][2], abs=1e-4)


def test_another_seed_begins_elsewhere_and_nothing_handed_out_is_shared() -> None:
    env = VectorMultimodalALEnv(CONFIG, 2)
    (one, _), (two, _) = env.reset(seed=7), env.reset(seed=8)
    assert not np.array_equal(one["features"], two["features"])
    for name, array in one.items():
        assert array.flags.owndata or array.base.flags.owndata
        assert not np.shares_memory(array, two[name])


def test_options_name_starts_and_source() -> None:
    two = config(datasets=(*CONFIG.datasets, "synthetic:samples=400,classes=3,modalities=2,dim=6,seed=9"))
    env = VectorMultimodalALEnv(two, 2)
    _, infos = env.reset(seed=0, options={"starts": [4, 1], "source": 1})
    assert infos["start"].tolist() == [4, 1]
    assert infos["source"].tolist() == [1, 1]
    seen = [int(env.reset()[1]["source"][0]) for _ in range(4)]  # without options they take turns
    assert seen in ([0, 1, 0, 1], [1, 0, 1, 0])


def test_make_by_name() -> None:
    single = gym.make("MultimodalAL-v0", config=CONFIG)
    assert isinstance(single.unwrapped, MultimodalALEnv)
    single.reset(seed=0)
    assert len(single.step(np.arange(B))) == 5
    vector = gym.make_vec("MultimodalAL-v0", num_envs=3, config=CONFIG)
    assert isinstance(vector.unwrapped, VectorMultimodalALEnv)
    assert vector.reset(seed=0)[0]["state"].shape[0] == 3


# Reward


def test_the_reward_is_the_weighted_sum_of_its_terms() -> None:
    weights = {name: 0.3 * (i + 1) for i, name in enumerate(TERMS)}
    env = VectorMultimodalALEnv(config(reward=RewardConfig(**weights)), 2)
    _, before = env.reset(seed=4)
    for t in range(T):
        _, rewards, _, _, infos = env.step(slots(t, 2))
        terms = {name: infos[f"reward/{name}"] for name in TERMS}
        np.testing.assert_allclose(rewards, sum(weights[n] * terms[n] for n in TERMS), rtol=1e-5)
        heads = np.stack([infos["accuracy/m0"], infos["accuracy/m1"]])
        w = np.stack([infos["amcb/m0"], infos["amcb/m1"]])
        for name, expected in {
            "relative_accuracy": infos["accuracy"],  # relative to nothing
            "soft_accuracy": infos["soft_accuracy"],
            "weakest_modality": heads.min(0),
            "hard_third": infos["hard_accuracy"],
            "accuracy_gain": infos["accuracy"] - before["accuracy"],
            "contribution_balance": -(w * np.log2(w)).sum(0),
        }.items():
            np.testing.assert_allclose(terms[name], expected, atol=1e-6, err_msg=name)
        before = infos


def test_accuracy_is_relative_to_the_mean_of_the_paired_curves(rng: np.random.Generator) -> None:
    curves = {name: rng.random((1, STARTS, T + 1)) for name in ("badge", "margin")}
    env = VectorMultimodalALEnv(CONFIG, 2, curves)
    _, infos = env.reset(seed=6, options={"starts": [3, 0]})
    for t in range(1, T + 1):
        _, rewards, _, _, infos = env.step(slots(t, 2))
        for name, curve in curves.items():
            np.testing.assert_allclose(infos[f"baseline/{name}"], curve[0, [3, 0], t], rtol=1e-6)
        expected = infos["accuracy"] - (curves["badge"] + curves["margin"])[0, [3, 0], t] / 2
        np.testing.assert_allclose(rewards, expected, atol=1e-6)


def test_smoothing_keeps_a_share_of_the_episodes_past() -> None:
    raw = VectorMultimodalALEnv(CONFIG, 2)
    smooth = VectorMultimodalALEnv(config(reward=RewardConfig(**ACCURACY_ALONE, smoothing=0.75)), 2)
    for env in (raw, smooth):
        env.reset(seed=8)
    for _ in range(2):  # the second episode forgets the first
        average = np.zeros(2)
        for t in range(T):
            average = 0.75 * average + 0.25 * raw.step(slots(t, 2))[1]
            np.testing.assert_allclose(smooth.step(slots(t, 2))[1], average, rtol=1e-5)
        raw.step(slots(0, 2))
        smooth.step(slots(0, 2))


# Mistakes


def test_invalid_and_repeated_slots_are_refused_and_nothing_changes() -> None:
    env = VectorMultimodalALEnv(config(candidates=CandidateConfig(per_pick=40)), 2)
    env.strict = True
    observations, _ = env.reset(seed=0)
    empty = int(np.flatnonzero(observations["valid"][1] == 0)[0])
    with pytest.raises(ValueError, match="valid"):
        env.step(np.array([[0, 1, 2, 3], [0, 1, 2, empty]]))
    with pytest.raises(ValueError, match="twice"):
        env.step(np.array([[0, 1, 2, 3], [0, 1, 2, 2]]))
    other = VectorMultimodalALEnv(config(candidates=CandidateConfig(per_pick=40)), 2)
    other.reset(seed=0)
    taken, expected = env.step(slots(0, 2)), other.step(slots(0, 2))
    np.testing.assert_array_equal(taken[1], expected[1])
    assert set(expected[4]) - set(taken[4]) == {"replaced"}


@pytest.mark.parametrize("outside", [K, K + 5, -1, -2])
def test_slots_outside_the_candidates_are_refused(outside: int) -> None:
    env = VectorMultimodalALEnv(CONFIG, 2)
    env.strict = True
    env.reset(seed=0)
    with pytest.raises(ValueError, match="slot"):
        env.step(np.array([[0, 1, 2, 3], [1, 2, 3, outside]]))


@pytest.mark.parametrize("shape", [(1, B), (2, B - 1), (2, B + 1), (B,)])
def test_actions_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    env = VectorMultimodalALEnv(CONFIG, 2)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="shape"):
        env.step(np.broadcast_to(np.arange(shape[-1]), shape).copy())


@pytest.mark.parametrize(
    "options", [{"starts": [0]}, {"starts": [0, 1, 2]}, {"starts": [0, STARTS]}, {"starts": [0, -1]}, {"source": 1}]
)
def test_options_that_do_not_fit_are_refused(options: dict) -> None:
    env = VectorMultimodalALEnv(CONFIG, 2)
    with pytest.raises((ValueError, ConfigError), match=next(iter(options))):
        env.reset(seed=0, options=options)


def test_a_budget_above_the_pool_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"budget of 108 labels \(8 \+ 25 rounds x 4\).* 92 pool rows"):
        VectorMultimodalALEnv(config(protocol=ProtocolConfig(8, B, 25)))
    VectorMultimodalALEnv(config(protocol=ProtocolConfig(8, B, 21)))  # 92 exactly


def test_the_whole_pool_can_be_bought() -> None:
    env = VectorMultimodalALEnv(config(protocol=ProtocolConfig(80, B, T)), 2)
    observations, _ = env.reset(seed=0)
    for _ in range(T):
        valid = [np.flatnonzero(v)[-B:] for v in observations["valid"]]
        observations, _, terminated, _, _ = env.step(np.stack(valid))
    assert terminated.all()
    assert not env.simulation.round.available.any()


def test_settings_that_do_not_fit_are_refused() -> None:
    wrong = np.zeros((1, STARTS, T))
    with pytest.raises(ConfigError, match=r"baseline_curves\['badge'\] has shape \(1, 5, 3\).*\(1, 5, 4\)"):
        VectorMultimodalALEnv(CONFIG, 1, {"badge": wrong})
    with pytest.raises(ConfigError, match="num_envs is 3; it must be a multiple of copies = 2"):
        VectorMultimodalALEnv(config(copies=2), 3)
    with pytest.raises(ConfigError, match="Did you mean 'margin'"):
        config(features=("margins",))
    with pytest.raises(ConfigError, match="starts is 0"):
        config(starts=0)
    with pytest.raises(ConfigError, match="No data set"):
        config(datasets=())
    with pytest.raises(ConfigError, match="smoothing is 1"):
        RewardConfig(smoothing=1.0)
    with pytest.raises(ConfigError, match="Every reward weight is 0"):
        RewardConfig(**dict.fromkeys(TERMS, 0.0))


def test_an_episode_plays_where_ray_cannot_be_imported(without_ray) -> None:
    code = f"""
import sys
import gymnasium as gym
import numpy as np
import envs
from envs.simulation import ProtocolConfig
from envs.models.frozen.trainer import FrozenConfig
import policies.selector
from policies.strategies import get_strategy
import envs.multimodal_al

env = gym.make("MultimodalAL-v0", config=dict(
    datasets={CONFIG.datasets!r}, protocol=ProtocolConfig(8, 4, 2), model=FrozenConfig(hidden=8, steps=4)))
env.reset(seed=0)
done = False
while not done:
    _, reward, done, _, info = env.step(np.arange(4))
simulation = env.unwrapped._vector.simulation
env.reset(seed=1)
assert get_strategy("badge")(simulation.round, 4).shape == (1, 4)
assert not any(name.split(".")[0] == "ray" for name in sys.modules)
print("played", info["accuracy"] > 0)
"""
    assert without_ray(code).split() == ["played", "True"]
