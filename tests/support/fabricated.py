"""Results of a comparison that nobody played, for the tests of reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from envs.pools import Pool
from envs.simulation import ProtocolConfig
from evaluation.runs import Played, Runs

PROTOCOL = ProtocolConfig(initial_labels=10, batch_size=5, rounds=4)


def make_pool(name: str = "toy", modalities: Sequence[str] = ("picture", "text"), **changes: Any) -> Pool:
    """60 samples of three classes."""
    rng = np.random.default_rng(0)
    return Pool(**{
        "name": name,
        "features": {m: rng.normal(size=(60, 3)) for m in modalities},
        "present": np.ones((60, len(modalities)), bool),
        "labels": np.arange(60) % 3,
        "class_names": ("ant", "bee", "cat"),
        "ids": np.array([f"id{i}" for i in range(60)]),
    } | changes)  # fmt: skip


def make_runs(pool: Pool, gain: float, seeds: int, protocol: ProtocolConfig = PROTOCOL, stream: int = 0) -> Runs:
    """Curves that rise by `gain` in the end, above noise that all strategies of a seed share in part."""
    t, m = protocol.rounds, len(pool.modalities)
    shared, rng = np.random.default_rng(1), np.random.default_rng(100 + stream)
    base = 0.4 + 0.02 * shared.normal(size=(seeds, 1)) + 0.3 * np.linspace(0, 1, t + 1) ** 0.6
    rise = gain * np.linspace(0, 1, t + 1) ** 0.5
    accuracy = base + rise + 0.006 * rng.normal(size=(seeds, t + 1)) * (np.arange(t + 1) > 0)
    heads = accuracy[..., None] - 0.05 * (1 + np.arange(m)) + 0.5 * gain
    seconds = np.where(np.arange(t + 1) > 0, 0.002 * (1 + rng.random((seeds, t + 1))), np.nan)
    order = np.stack([np.random.default_rng(s).permutation(pool.num_samples) for s in range(seeds)])
    n, b = protocol.initial_labels, protocol.batch_size
    picked = np.stack([row[n:][np.random.default_rng(stream).permutation(len(row) - n)] for row in order])
    return Runs(
        seeds=10_000 + np.arange(seeds),
        starts=np.array([f"start{s}" for s in range(seeds)]),
        models=np.array([f"model{s}" for s in range(seeds)]),
        accuracy=accuracy,
        soft_accuracy=accuracy - 0.05,
        hard_accuracy=accuracy - 0.2,
        class_coverage=np.broadcast_to(np.linspace(0.6, 1, t + 1), (seeds, t + 1)).copy(),
        modality_accuracy=heads,
        weights=np.full((seeds, t + 1, m), 1 / m),
        shapley=np.repeat(accuracy[..., None] / m, m, -1),
        all_labels_accuracy=np.full(seeds, 0.85),
        initial=order[:, :n],
        picked=picked[:, : t * b].reshape(seeds, t, b),
        seconds_inference=seconds,
        seconds_scoring=0.5 * seconds,
        seconds_picking=0.1 * seconds,
        seconds_train=3 * seconds,
        peak_memory=np.full(seeds, 2.5e6 if stream else np.nan),
    )


def make_played(
    pool: Pool,
    gains: dict[str, float],
    policies: Sequence[str] = (),
    seeds: int = 8,
    protocol: ProtocolConfig = PROTOCOL,
    facts: dict[str, Any] | None = None,
) -> Played:
    """One data set; `gains` names the strategies, `facts` replaces some of the invented ones."""
    card = {"labels_used": 123, "episodes": 960, "seed": 0, "preset": "default", "trained_on": [{"name": "else"}]}
    invented = {
        "protocol": asdict(protocol),
        "policies": {name: card for name in policies},
        "notes": ["A note."],
        "versions": {"python": "3.11"},
        "config_hash": "0123456789abcdef",
        "dataset_fingerprint": pool.fingerprint,
        "pairing": {str(10_000 + s): f"start{s}" for s in range(seeds)},
        "hardware": {"cpu": "a cpu", "cores": 2},
        "seconds_total": 12.5,
    }
    runs = {name: make_runs(pool, gain, seeds, protocol, i) for i, (name, gain) in enumerate(gains.items())}
    return Played(pool, protocol, runs, invented | (facts or {}))
