"""RL libraries train on the environment as it is. They are in an environment of their own: `make libraries`.

A library is a line in docs/environment.md; what that says was run is what runs here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import envs  # registers the environment  # noqa: F401
from envs.candidates import DEFAULT_FEATURES, STATE
from envs.multimodal_al import MultimodalALEnv, VectorMultimodalALEnv
from tests.support.environment import NAME, SMALL, B, T

pytestmark = pytest.mark.slow


def library(name: str) -> Any:
    return pytest.importorskip(name, reason="`make libraries` installs it and runs this file")


def make_one() -> gym.Env:
    return gym.make(NAME, config=SMALL, render_mode=None)


def weights(policy: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in policy.parameters()])


# stable-baselines3


@pytest.mark.parametrize("make", [make_one, lambda: MultimodalALEnv(SMALL)], ids=["gym.make", "class"])
def test_stable_baselines3_checks_it(make: Callable[[], gym.Env]) -> None:
    library("stable_baselines3")
    from stable_baselines3.common.env_checker import check_env

    check_env(make())


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
@pytest.mark.parametrize("vector", ["DummyVecEnv", "SubprocVecEnv"])
@pytest.mark.parametrize("normalise", [False, True])
def test_stable_baselines3_trains_saves_and_loads(algorithm: str, vector: str, normalise: bool, tmp_path: Path) -> None:
    sb3 = library("stable_baselines3")
    from stable_baselines3.common import vec_env

    env = getattr(vec_env, vector)([make_one] * 2)
    if normalise:
        env = vec_env.VecNormalize(env)
    more = {"batch_size": 8, "n_epochs": 2} if algorithm == "PPO" else {}
    model = getattr(sb3, algorithm)("MultiInputPolicy", env, n_steps=2 * T, seed=0, device="cpu", **more)
    before = weights(model.policy)
    model.learn(8 * T)
    after = weights(model.policy)
    assert after.isfinite().all() and not torch.equal(before, after)
    assert all(episode["l"] == T for episode in model.ep_info_buffer) or not model.ep_info_buffer
    model.save(tmp_path / "model")
    observation = env.reset()
    again = getattr(sb3, algorithm).load(tmp_path / "model", env=env)
    expected, _ = model.predict(observation, deterministic=True)
    np.testing.assert_array_equal(again.predict(observation, deterministic=True)[0], expected)
    again.learn(4 * T)
    env.close()


def test_stable_baselines3_plays_random_starts_unless_it_is_seeded() -> None:
    library("stable_baselines3")
    from stable_baselines3.common.vec_env import DummyVecEnv

    def played(seed: int | None) -> list[list[int]]:
        env = DummyVecEnv([lambda: gym.make(NAME, config=SMALL | {"starts": 64})] * 4)
        env.seed(seed)
        found = []
        for _ in range(3):
            env.reset()
            found.append([info["start"] for info in env.reset_infos])
        return np.transpose(found).tolist()

    assert len({tuple(one) for one in played(None)}) == 4  # SB3 draws a seed where it is given none
    assert played(7) == played(7) != played(8)


# sb3-contrib


@pytest.mark.parametrize("vector", ["DummyVecEnv", "SubprocVecEnv"])
def test_sb3_contrib_masks_what_is_invalid(vector: str, tmp_path: Path) -> None:
    contrib = library("sb3_contrib")
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
    from stable_baselines3.common import vec_env

    few = SMALL | {"candidates": {"per_pick": 40}}  # more slots than there are samples
    env = getattr(vec_env, vector)([lambda: gym.make(f"envs:{NAME}", config=few)] * 2)
    assert is_masking_supported(env)
    model = contrib.MaskablePPO("MultiInputPolicy", env, n_steps=2 * T, batch_size=8, seed=0, device="cpu")
    before = weights(model.policy)
    model.learn(8 * T)
    assert not torch.equal(before, weights(model.policy))
    observation = env.reset()
    masks = get_action_masks(env)
    assert masks.shape == (2, B * 40 * B)
    assert not masks.all()
    picks, _ = model.predict(observation, action_masks=masks)
    assert (np.take_along_axis(observation["valid"], picks, 1) > 0).all()
    model.save(tmp_path / "model")
    contrib.MaskablePPO.load(tmp_path / "model", env=env).learn(2 * T)
    env.close()


def test_sb3_contrib_trains_a_recurrent_policy() -> None:
    contrib = library("sb3_contrib")
    model = contrib.RecurrentPPO(
        "MultiInputLstmPolicy", make_one(), n_steps=4 * T, batch_size=6, n_epochs=2, seed=0, device="cpu"
    )
    before = weights(model.policy)
    model.learn(8 * T)
    after = weights(model.policy)
    assert after.isfinite().all() and not torch.equal(before, after)


# A loop of PPO in one file, in CleanRL's manner


class Agent(nn.Module):
    """Independent categorical heads over the slots, and a value."""

    def __init__(self, space: gym.spaces.Dict, action_space: gym.spaces.MultiDiscrete):
        super().__init__()
        self.nvec = action_space.nvec.tolist()
        self.body = nn.Sequential(nn.Linear(gym.spaces.flatdim(space), 32), nn.Tanh())
        self.actor, self.critic = nn.Linear(32, sum(self.nvec)), nn.Linear(32, 1)

    def forward(self, flat: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        hidden = self.body(flat)
        heads = [torch.distributions.Categorical(logits=x) for x in self.actor(hidden).split(self.nvec, 1)]
        if action is None:
            action = torch.stack([head.sample() for head in heads], 1)
        logp = sum(head.log_prob(action[:, i]) for i, head in enumerate(heads))
        entropy = sum(head.entropy() for head in heads)
        return action, logp, entropy, self.critic(hidden)[:, 0]


def flatten(observation: dict[str, np.ndarray]) -> Tensor:
    arrays = [array.reshape(len(array), -1).astype(np.float32) for array in observation.values()]
    return torch.from_numpy(np.concatenate(arrays, 1))


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync", "async"])
def test_a_loop_in_the_manner_of_cleanrl(mode: str) -> None:
    steps, gamma, lam = 2 * (T + 1), 0.99, 0.95
    many = gym.make_vec(NAME, num_envs=4, vectorization_mode=mode, config=SMALL)
    many = gym.wrappers.vector.RecordEpisodeStatistics(many)
    torch.manual_seed(0)
    agent = Agent(many.single_observation_space, many.single_action_space)
    optimiser = torch.optim.Adam(agent.parameters(), lr=2.5e-3)
    before, episodes = weights(agent), 0
    observation, _ = many.reset(seed=1)
    done = torch.zeros(4)
    for _ in range(3):
        rows: list[tuple[Tensor, ...]] = []
        for _ in range(steps):
            flat = flatten(observation)
            with torch.no_grad():
                action, logp, _, value = agent(flat)
            observation, reward, terminated, truncated, infos = many.step(action.numpy())
            rows.append((flat, action, logp, value, torch.as_tensor(reward).float(), done))
            done = torch.as_tensor(terminated | truncated).float()
            if "episode" in infos:
                episodes += int(infos["_episode"].sum())
                assert (infos["episode"]["l"][infos["_episode"]] == T).all()
        flat, action, logp, value, reward, was_done = (torch.stack(column) for column in zip(*rows, strict=True))
        with torch.no_grad():
            following = agent(flatten(observation))[3]
        advantage, last = torch.zeros_like(reward), torch.zeros(4)
        for t in reversed(range(steps)):
            after = 1 - (done if t == steps - 1 else was_done[t + 1])
            ahead = following if t == steps - 1 else value[t + 1]
            last = reward[t] + gamma * ahead * after - value[t] + gamma * lam * after * last
            advantage[t] = last
        keep = was_done.flatten() == 0  # a step that only resets teaches nothing
        rows_kept = [x.flatten(0, 1)[keep] for x in (flat, action, logp, advantage, advantage + value)]
        for _ in range(2):
            _, new, entropy, values = agent(rows_kept[0], rows_kept[1])
            ratio = (new - rows_kept[2]).exp()
            gain = torch.min(ratio * rows_kept[3], ratio.clamp(0.8, 1.2) * rows_kept[3]).mean()
            loss = -gain + 0.5 * (values - rows_kept[4]).square().mean() - 0.01 * entropy.mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimiser.step()
    many.close()
    assert episodes == 3 * 2 * 4
    assert weights(agent).isfinite().all() and not torch.equal(before, weights(agent))


# TorchRL


def torchrl_environments() -> dict[str, Callable[[], Any]]:
    from gymnasium.vector import AutoresetMode
    from torchrl.envs import GymEnv, GymWrapper

    def wrapped(mode: str, **arguments: Any) -> Any:
        return GymWrapper(
            gym.make_vec(NAME, num_envs=2, vectorization_mode=mode, config=SMALL, **arguments),
            categorical_action_encoding=True,
        )

    return {
        "GymEnv": lambda: GymEnv(NAME, config=SMALL, categorical_action_encoding=True),
        "GymWrapper": lambda: GymWrapper(make_one(), categorical_action_encoding=True),
        "vector": lambda: wrapped("vector_entry_point", autoreset_mode="Disabled"),
        "class": lambda: GymWrapper(
            VectorMultimodalALEnv(SMALL, 2, autoreset_mode="Disabled"), categorical_action_encoding=True
        ),
        "sync": lambda: wrapped("sync", vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED}),
        "async": lambda: wrapped("async", vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED}),
    }


@pytest.mark.parametrize("kind", ["GymEnv", "GymWrapper", "vector", "class", "sync", "async"])
def test_torchrl_trains(kind: str) -> None:
    library("torchrl")
    from tensordict.nn import TensorDictModule
    from torchrl.collectors import Collector
    from torchrl.envs import check_env_specs
    from torchrl.modules import ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss
    from torchrl.objectives.value import GAE

    env = torchrl_environments()[kind]()
    env.set_seed(0)
    check_env_specs(env)
    rollout = env.rollout(2 * T, break_when_any_done=False)
    done = rollout["next", "done"].squeeze(-1)
    assert done[..., T - 1].all() and done.sum() == done.numel() / T
    assert rollout["features"].dtype == torch.float32
    torch.manual_seed(0)
    # TorchRL gives an entry called "state" the name "observation".
    body = TensorDictModule(Heads(), in_keys=["features", "observation"], out_keys=["logits"])
    actor = ProbabilisticActor(
        body, in_keys=["logits"], spec=env.action_spec, distribution_class=Slots, return_log_prob=True
    )
    critic = ValueOperator(Value(), in_keys=["observation"])
    loss, advantage = ClipPPOLoss(actor, critic), GAE(gamma=0.99, lmbda=0.95, value_network=critic)
    optimiser = torch.optim.Adam(loss.parameters(), 1e-2)
    before = weights(actor)
    collector = Collector(env, actor, frames_per_batch=8 * T, total_frames=16 * T)
    for batch in collector:
        advantage(batch)
        terms = loss(batch.reshape(-1))
        total = sum(value for name, value in terms.items() if name.startswith("loss_"))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    collector.shutdown()
    assert weights(actor).isfinite().all() and not torch.equal(before, weights(actor))


class Heads(nn.Module):
    """Logits [..., b, K] of each entry of the action."""

    def __init__(self) -> None:
        super().__init__()
        self.static, self.state = nn.Linear(len(DEFAULT_FEATURES), B), nn.Linear(len(STATE), B)

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        return self.static(features).mT + self.state(state)[..., None]


class Slots(torch.distributions.Independent):
    """Independent draws of each entry of the action."""

    def __init__(self, logits: Tensor):
        super().__init__(torch.distributions.Categorical(logits=logits), 1)


class Value(nn.Module):
    """The value of a state."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(len(STATE), 1)

    def forward(self, state: Tensor) -> Tensor:
        return self.linear(state)


# RLlib's own PPO


@pytest.mark.parametrize("entry", [MultimodalALEnv, f"envs:{NAME}"], ids=["class", "name"])
def test_rllibs_own_ppo_trains(entry: Any) -> None:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.connectors.env_to_module import FlattenObservations

    settings = SMALL if entry is MultimodalALEnv else {"config": SMALL}
    algorithm = (
        PPOConfig()
        .environment(entry, env_config=settings)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=2,
            env_to_module_connector=lambda *_, **__: FlattenObservations(),
        )
        .training(train_batch_size_per_learner=8 * T, minibatch_size=2 * T, num_epochs=1)
        .debugging(seed=0, log_level="ERROR")
        .build_algo()
    )

    def state() -> np.ndarray:
        module = next(iter(algorithm.learner_group.get_weights().values()))
        return np.concatenate([np.ravel(value) for value in module.values()])

    before = state()
    result = algorithm.train()
    assert result["env_runners"]["episode_len_mean"] == T
    assert np.isfinite(state()).all() and not np.array_equal(before, state())
    algorithm.stop()
