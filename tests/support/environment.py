"""An environment that takes milliseconds to step."""

from __future__ import annotations

import dataclasses

import numpy as np

import envs  # registers the environment  # noqa: F401
from envs.candidates import CandidateConfig
from envs.models.frozen.trainer import FrozenConfig
from envs.multimodal_al import EnvConfig
from envs.rewards import TERMS, RewardConfig
from envs.simulation import ProtocolConfig

B, K, T, STARTS = 4, 20, 3, 5

ACCURACY_ALONE = dict.fromkeys(TERMS, 0.0) | {"relative_accuracy": 1.0}

CONFIG = EnvConfig(
    datasets=("synthetic:samples=400,classes=4,modalities=2,dim=8,seed=1",),
    protocol=ProtocolConfig(8, B, T),
    model=FrozenConfig(hidden=8, steps=8),
    candidates=CandidateConfig(per_pick=5),
    reward=RewardConfig(**ACCURACY_ALONE),
    starts=STARTS,
)

NAME = "MultimodalAL-v0"
SMALL = {  # nearly the same as a user writes it, with the default reward
    "datasets": list(CONFIG.datasets),
    "protocol": {"initial_labels": 8, "batch_size": B, "rounds": T},
    "model": {"hidden": 8, "steps": 8},
    "candidates": {"per_pick": 5},
    "starts": STARTS,
}


def config(**changes) -> EnvConfig:
    return dataclasses.replace(CONFIG, **changes)


def slots(seed: int, count: int) -> np.ndarray:
    """Distinct slots [count, b]."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(K)[:B] for _ in range(count)])
