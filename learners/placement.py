"""Where a run's processes lie and about how much memory each takes: what `train` says before it starts.

The constants were fitted to measured peaks; docs/scaling.md holds the estimates against measurements.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from envs.candidates import STATE, observation_bytes
from envs.pools import Pool
from envs.pools.partition import partition, training_roles

if TYPE_CHECKING:
    from learners.settings import TrainConfig

# Bytes of a process that has its libraries and its part of RLlib, and has done nothing.
DRIVER, RLLIB = 670e6, 550e6
SHARED = 190e6  # of them: pages of libraries, which all processes of a machine share
INFOS = 400  # bytes of an episode's round on its way: figures about it, and what wraps them
_FLOAT = 4  # bytes

# What playing holds, in floats; fitted to the peaks by N (samples), E (episodes) and K (candidates) in docs/scaling.md,
# "How it grows".
COPIES_WHILE_PREPARING = 4  # of a data set's prepared policy half: itself, and what it is made from
COPIES_OF_OUTPUTS = 3  # of what the task model says of the candidates, which grows with K
FLOATS_OF_POOL_ROW = 8  # per episode: masks, distances, what candidates are chosen by; grows with N
FLOATS_OF_HELD_ROW = 4  # per episode: what its models reached on a validation or reward row, ...
RIGHT_OR_WRONG = 1 / 4  # ... and a byte for each modality


@dataclass(frozen=True)
class Size:
    """The figures of a data set that decide memory."""

    rows: int  # of its policy half
    pool: int  # of an episode: may be picked
    held: int  # of an episode: validation and reward rows
    modalities: int
    width: int  # of a prepared modality
    classes: int


def size_of(pool: Pool, config: TrainConfig) -> Size:
    """The size of a data set that a run trains on."""
    roles = training_roles(pool, config.seed)
    widest = max(features.shape[1] for features in pool.features.values())
    return Size(
        rows=len(partition(pool).policy),
        pool=len(roles.pool),
        held=len(roles.validation) + len(roles.holdout),
        modalities=len(pool.modalities),
        width=min(widest, config.model.projection_dim) + 1,
        classes=pool.num_classes,
    )


def round_bytes(config: TrainConfig) -> int:
    """Bytes of one episode's observation in one round."""
    slots = config.candidates.per_pick * config.protocol.batch_size
    return observation_bytes(slots, len(config.policy.features))


def sent_bytes(config: TrainConfig) -> int:
    """About the bytes of one episode's round on its way from an environment runner to the learner."""
    policy = config.policy
    static, state = len(policy.features), len(STATE)
    picks = config.protocol.batch_size * (_FLOAT * static + 8)
    weights = (static + len(policy.batch_features)) * (1 + len(policy.state))
    seen = round_bytes(config) if config.trainer.sends_observations(config) else _FLOAT * (state + weights)
    return seen + picks + INFOS


def episodes_of_runner(config: TrainConfig) -> int:
    """Episodes that one process advances in lockstep."""
    return math.prod(config.trainer.together(config))


def runner_bytes(config: TrainConfig, sizes: Sequence[Size]) -> float:
    """About the most that a process that plays holds, without the raw features of its data sets."""
    starts, _ = config.trainer.together(config)
    episodes = episodes_of_runner(config)
    slots = config.candidates.per_pick * config.protocol.batch_size
    prepared = COPIES_WHILE_PREPARING * sum(s.modalities * s.width * s.rows for s in sizes)
    outputs = [s.modalities * (config.model.hidden + s.classes) + s.classes for s in sizes]  # of a row
    play = max(
        starts * s.modalities * s.width * (s.pool + s.held)
        + episodes
        * (
            COPIES_OF_OUTPUTS * o * min(slots, s.pool)
            + FLOATS_OF_POOL_ROW * s.pool
            + (FLOATS_OF_HELD_ROW + s.modalities * RIGHT_OR_WRONG) * s.held
        )
        for s, o in zip(sizes, outputs, strict=True)
    )
    kept = config.trainer.observations_held(config) * episodes * round_bytes(config)
    return config.trainer.process_bytes + _FLOAT * (prepared + play) + kept


def describe(config: TrainConfig, sizes: Sequence[Size]) -> list[str]:
    """Two lines: who runs where with how many threads; about how much memory that takes."""
    resources, episodes = config.resources, episodes_of_runner(config)
    runners, learners = resources.num_env_runners, resources.num_learners
    play = f"{runners} x {episodes} episodes in lockstep{_on(resources.num_gpus_per_env_runner)}"
    learn = f"{learners} remote{_on(resources.num_gpus_per_learner)}" if learners else "in the driver"
    if runners:
        first = f"environment runners {play}; learner {learn}; 1 thread each"
    else:
        first = f"one process plays {episodes} episodes in lockstep and {config.trainer.verb}; 1 thread"
    cluster = ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))
    first += "" if cluster else f"; {os.cpu_count()} cores here"
    player, (driver, learner) = runner_bytes(config, sizes), config.trainer.learning_bytes(config)
    driver += DRIVER + (0 if runners else player - config.trainer.process_bytes)
    parts = [f"{driver / 1e9:.1f} GB the driver"]
    if runners:
        parts.append(f"{player / 1e9:.1f} GB each runner")
    if learners:
        parts.append(f"{(RLLIB + learner) / 1e9:.1f} GB each learner")
    total = driver + runners * (player - SHARED) + learners * (RLLIB + learner - SHARED)
    free = "" if cluster else _free()
    return [f"processes  {first}", f"memory     about {', '.join(parts)}; {total / 1e9:.1f} GB in all{free}"]


def _on(gpus: float) -> str:
    return f" on {gpus:g} GPU each" if gpus else " on the CPU"


def _free() -> str:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        return ""
    return f", {free * 1024 / 1e9:.1f} GB free here"
