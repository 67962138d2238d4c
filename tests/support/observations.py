"""Observations and policies made of random numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from envs.candidates import STATE
from policies.selector import (
    Selector,
    SelectorConfig,
)

FEW = ("margin", "density", "rarity")


def random_observation(seed: int, rows: int = 3, k: int = 14, features: int = len(FEW)) -> dict[str, Tensor]:
    """An observation as an environment gives it, the last slots of some rows empty."""
    rng = np.random.default_rng(seed)
    valid = np.arange(k) < rng.integers(k // 2, k + 1, (rows, 1))

    def half(*shape: int) -> Tensor:
        values = rng.normal(size=(rows, k, *shape)) * valid.reshape(rows, k, *[1] * len(shape))
        return torch.from_numpy(values.astype(np.float16))

    return {
        "features": half(features).clamp(-1, 1),
        "gradient": half(16) * 0.2,
        "hidden": half(8),
        "fisher": half(6),
        "input": torch.nn.functional.normalize(half(5).float(), dim=2).half(),
        "input_distance": half().abs(),
        "uncertainty": half().abs().clamp_max(1.0),
        "labelled_distance": half().abs(),
        "predicted": torch.from_numpy((rng.integers(0, 3, (rows, k)) * valid).astype(np.int16)),
        "valid": torch.from_numpy(valid.astype(np.int8)),
        "state": torch.from_numpy(rng.random((rows, len(STATE))).astype(np.float32)),
    }


def random_selector(seed: int, **config) -> Selector:
    selector = Selector(SelectorConfig(**({"features": FEW} | config)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in selector.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return selector


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
