"""Settings of evolution that take seconds."""

from __future__ import annotations

from learners.settings import TrainConfig, build, merge, parse_overrides

DATASET = "synthetic:samples=300,classes=3,modalities=2,dim=6,seed=1"

FAMILY = "synthetic-family:samples=400,classes=3,noise=0.2"

SMALL = [
    "protocol.initial_labels=6",
    "protocol.batch_size=3",
    "protocol.rounds=2",
    "model.steps=5",
    "candidates.per_pick=8",
    "evolution.generations=3",
    "evolution.population=4",
    "evolution.starts=3",
    "starts=5",
]


def settings(datasets: tuple[str, ...] = (DATASET, FAMILY), **above) -> TrainConfig:
    given_ = {"datasets": list(datasets), "algorithm": "evolution", "resources": {"num_env_runners": 0}}
    return build(TrainConfig, merge(merge(parse_overrides(SMALL), given_), above))
