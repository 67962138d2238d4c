"""What `train` says about processes and memory before it starts."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

from benchmarks.scaling import memory_of
from envs.multimodal_al import VectorMultimodalALEnv
from envs.sources import open_dataset
from learners.placement import describe, episodes_of_runner, round_bytes, runner_bytes, size_of
from learners.settings import TrainConfig, build, parse_overrides
from tests.support.training import DATASET


def config(*settings: str) -> TrainConfig:
    return build(TrainConfig, {"datasets": [DATASET]} | parse_overrides(list(settings)))


def lines(*settings: str) -> list[str]:
    made = config(*settings)
    return describe(made, [size_of(open_dataset(DATASET), made)])


@pytest.mark.parametrize(
    "settings, words",
    [
        ([], "environment runners 2 x 48 episodes in lockstep on the CPU; learner in the driver; 1 thread each"),
        (
            ["resources.num_learners=2", "resources.num_gpus_per_env_runner=0.5"],
            "2 x 48 episodes in lockstep on 0.5 GPU each; learner 2 remote on the CPU",
        ),
        (["resources.num_env_runners=0"], "one process plays 96 episodes in lockstep and learns; 1 thread"),
        (["algorithm=evolution"], "environment runners 2 x 36 episodes"),
        (["algorithm=evolution", "resources.num_env_runners=0"], "plays 36 episodes in lockstep and searches"),
    ],
)
def test_who_runs_where(settings, words, monkeypatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests leave one running
    processes, memory = lines(*settings)
    assert words in processes and f"{os.cpu_count()} cores here" in processes
    amounts = [float(x) for x in re.findall(r"([\d.]+) GB", memory)]
    assert len(amounts) >= 2 and all(0.3 < amount < 100 for amount in amounts)
    monkeypatch.setenv("RAY_ADDRESS", "auto")  # this machine says nothing about another one
    assert not any("here" in line for line in lines(*settings))


def test_what_a_round_sends_is_what_an_observation_holds() -> None:
    made = config("candidates.per_pick=8", "protocol.batch_size=3", "protocol.rounds=2", "protocol.initial_labels=6")
    observation, _ = VectorMultimodalALEnv(made.env(), num_envs=16).reset(seed=0)
    assert sum(array.nbytes for array in observation.values()) == 16 * round_bytes(made)


def test_more_of_anything_takes_more_memory() -> None:
    def taken(*settings: str, samples: int = 300) -> float:
        made = config(*settings)
        return runner_bytes(made, [size_of(open_dataset(DATASET.replace("=300", f"={samples}")), made)])

    assert taken() < taken(samples=3000) < taken("learner.copies=32", samples=3000)
    assert taken() < taken("candidates.per_pick=80")
    assert episodes_of_runner(config("resources.num_env_runners=3")) == 32


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="Linux only")
def test_what_a_process_holds() -> None:
    before = memory_of(os.getpid())
    held = np.ones(50_000_000 // 8)
    after = memory_of(os.getpid())
    assert 0 < before["pss"] <= before["rss"] <= before["peak"] <= after["peak"]
    assert after["rss"] - before["rss"] > 0.8 * held.nbytes
