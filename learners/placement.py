"""Where a run's processes lie and about how much memory each takes: what `train` says before it starts.

The constants were fitted to measured peaks; docs/scaling.md holds the estimates against measurements.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from envs.candidates import STATE, observation_bytes
from envs.pools import Pool
from envs.pools.partition import partition, training_roles
from learners.algorithms.evolution import STARTS_PER_TASK
from learners.settings import TrainConfig

# Bytes of a process that has its libraries and its part of RLlib, and has done nothing.
DRIVER, RLLIB, TASK = 670e6, 550e6, 400e6
INFOS = 400  # bytes of an episode's round on its way: figures about it, and what wraps them
SHARED = 190e6  # of them: pages of libraries, which all processes of a machine share
_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Size:
    """What of a data set decides memory."""

    rows: int  # of its policy half
    pool: int  # of an episode: may be picked
    held: int  # of an episode: validation and reward rows
    modalities: int
    width: int  # of a prepared modality
    classes: int


def size_of(pool: Pool, config: TrainConfig) -> Size:
    """Of a data set that a run trains on."""
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


def sends_observations(config: TrainConfig) -> bool:
    """Whether the learner looks at observations; else it is sent the gradients that were taken at the draw."""
    return config.algorithm != "reinforce" or not config.policy.only_linear


def sent_bytes(config: TrainConfig) -> int:
    """About the bytes of one episode's round on its way from an environment runner to the learner."""
    policy = config.policy
    static, state = len(policy.features), len(STATE)
    picks = config.protocol.batch_size * (_FLOAT * static + 8)
    weights = (static + len(policy.batch_features)) * (1 + len(policy.state))
    seen = round_bytes(config) if sends_observations(config) else _FLOAT * (state + weights)
    return seen + picks + INFOS


def episodes_of_runner(config: TrainConfig) -> int:
    """Episodes that one process advances in lockstep."""
    if config.algorithm == "evolution":
        return (config.evolution.population + 2) * min(config.evolution.starts, STARTS_PER_TASK)
    return config.learner.groups // max(config.resources.num_env_runners, 1) * config.learner.copies


def runner_bytes(config: TrainConfig, sizes: Sequence[Size]) -> float:
    """About the most that a process that plays holds, without the raw features of its data sets."""
    episodes = episodes_of_runner(config)
    evolution = config.algorithm == "evolution"
    starts = min(config.evolution.starts, STARTS_PER_TASK) if evolution else episodes // config.learner.copies
    slots = config.candidates.per_pick * config.protocol.batch_size
    prepared = 4 * sum(s.modalities * s.width * s.rows for s in sizes)  # and copies of it while it is prepared
    outputs = [s.modalities * (config.model.hidden + s.classes) + s.classes for s in sizes]  # of a row
    play = max(
        starts * s.modalities * s.width * (s.pool + s.held)
        + episodes * (3 * o * min(slots, s.pool) + 8 * s.pool + (4 + s.modalities / 4) * s.held)
        for s, o in zip(sizes, outputs, strict=True)
    )
    # The policy computes with several copies of what episodes see; where the learner looks at it, it is kept as well.
    rounds = config.protocol.rounds + 1 if sends_observations(config) else 1
    kept = 0 if evolution else (12 + 3 * rounds) * episodes * round_bytes(config)
    return (TASK if evolution else RLLIB) + _FLOAT * (prepared + play) + kept


def learning_bytes(config: TrainConfig) -> tuple[float, float]:
    """About what an iteration's episodes, and learning from them, add to the driver and to each remote learner."""
    if config.algorithm == "evolution":
        return 0.0, 0.0
    learners = config.resources.num_learners
    seen = config.learner.groups * config.learner.copies * config.protocol.rounds * sent_bytes(config)
    return (3 * seen, 4.5 * seen / learners) if learners else (5 * seen, 0.0)


def describe(config: TrainConfig, sizes: Sequence[Size]) -> list[str]:
    """Two lines: who runs where with how many threads; about how much memory that takes."""
    resources, episodes = config.resources, episodes_of_runner(config)
    runners, learners = resources.num_env_runners, resources.num_learners
    play = f"{runners} x {episodes} episodes in lockstep{_on(resources.num_gpus_per_env_runner)}"
    learn = f"{learners} remote{_on(resources.num_gpus_per_learner)}" if learners else "in the driver"
    what = "searches" if config.algorithm == "evolution" else "learns"
    if runners:
        first = f"environment runners {play}; learner {learn}; 1 thread each"
    else:
        first = f"one process plays {episodes} episodes in lockstep and {what}; 1 thread"
    cluster = ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))
    first += "" if cluster else f"; {os.cpu_count()} cores here"
    player, (driver, learner) = runner_bytes(config, sizes), learning_bytes(config)
    driver += DRIVER + (0 if runners else player - (TASK if config.algorithm == "evolution" else RLLIB))
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
