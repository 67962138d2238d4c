"""A reward term of your own: no modality may get worse.

    python -m examples.reward_term
    python run.py train --dataset emoji --out runs/mine --set reward.extra.examples.reward_term:worst_change=0.5

A sweep searches its weight under the same name: `reward.extra.examples.reward_term:worst_change`.
"""

from __future__ import annotations

import tempfile

import numpy as np
from torch import Tensor

from envs.multimodal_al import EnvConfig, MultimodalALEnv
from envs.rewards import Outcome, RewardConfig
from learners.algorithms.config import EvolutionConfig
from learners.settings import ResourceConfig, TrainConfig
from learners.training import train
from policies.policy_file import load_policy

NAME = "examples.reward_term:worst_change"


def worst_change(outcome: Outcome) -> Tensor:
    """What the round did to the accuracy of the modality that fared worst, [E]."""
    return (outcome.after.modality_accuracy - outcome.before.modality_accuracy).amin(1)


def main() -> None:
    """An episode of random picks with the term, then a policy that is trained for it."""
    reward = RewardConfig(extra={NAME: 0.5})
    env = MultimodalALEnv(EnvConfig(datasets=("digits",), reward=reward))
    env.reset(seed=0)
    env.action_space.seed(0)
    for t in range(env.config.protocol.rounds):
        _, total, _, _, info = env.step(env.action_space.sample())
        print(f"round {t + 1:2d}  reward {total:.3f}  of it 0.5 x worst_change {info[f'reward/{NAME}']:+.3f}")
    config = TrainConfig(
        datasets=("synthetic:samples=800,classes=4,modalities=2,dim=6",),
        algorithm="evolution",
        reward=reward,
        evolution=EvolutionConfig(generations=3, population=8),
        resources=ResourceConfig(num_env_runners=0),  # here; without this line in Ray's workers, which find the term
    )
    with tempfile.TemporaryDirectory() as folder:
        policy, _ = load_policy(train(config, folder))
    weights = policy.named_weights()
    print(
        "learned:", {name: round(weights[name], 2) for name in sorted(weights, key=lambda n: -np.abs(weights[n]))[:4]}
    )


if __name__ == "__main__":
    main()
