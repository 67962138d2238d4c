"""What more processes bring, where the time goes, what a process holds, and how both grow: docs/scaling.md's tables.

    python -m benchmarks.scaling [--dataset digits] [--iterations 5] [--part runners|growth]

Real training iterations on RLlib, with as many episodes in an iteration whatever the number of processes. Needs idle
cores: two for the first part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks import timing
from learners.algorithms.evolution import EvolutionTrainer
from learners.algorithms.gradient import make_algorithm
from learners.placement import DRIVER, RLLIB, runner_bytes, sent_bytes, size_of
from learners.settings import TrainConfig, build, merge
from learners.training import opened, policy_card
from runtime import markdown
from runtime.cluster import local_ray

LAYOUTS = ((1, 0), (2, 0), (2, 1), (2, 2))  # environment runners, remote learners
GROWTH_BASE = {"N": 8_000, "E": 48, "K": 400}
GROWTH = {"N": (32_000, 128_000, 1_000_000), "E": (16, 96), "K": (100, 1_600)}
GROWTH_ROUNDS = 5
MB = 1e6


@dataclass
class Measured:
    """What a few iterations of one configuration took."""

    rounds: int  # of all episodes of an iteration
    seconds: list[float] = field(default_factory=list)  # by iteration
    spent: dict[str, float] = field(default_factory=dict)  # seconds per iteration by who spends them
    memory: dict[str, list[dict[str, float]]] = field(default_factory=dict)  # kind of process -> each one's bytes
    predicted: dict[str, float] = field(default_factory=dict)  # bytes by kind, as `train` prints them

    @property
    def rate(self) -> float:
        """Rounds per second, the median over iterations."""
        return self.rounds / float(np.median(self.seconds))

    def share(self, key: str) -> float:
        """The share of the wall time, in percent."""
        return 100 * self.spent[key] / float(np.mean(self.seconds))

    def held(self, kind: str, what: str) -> float:
        """MB of the largest process of a kind; NaN where there is none."""
        return max((each[what] for each in self.memory.get(kind, [])), default=float("nan")) / MB


def gradient_run(settings: dict[str, Any], iterations: int) -> Measured:
    """Iterations of REINFORCE; the first one is not counted."""
    config = build(TrainConfig, settings)
    with local_ray(config.resources.processes):
        return _gradient_run(config, iterations)


def _gradient_run(config: TrainConfig, iterations: int) -> Measured:
    algorithm = make_algorithm(config, {})
    remote = config.resources.num_env_runners > 0

    def on_runners(work: Callable[[Any], Any]) -> list[Any]:
        return algorithm.env_runner_group.foreach_env_runner(work, local_env_runner=not remote)

    found = Measured(config.learner.groups * config.learner.copies * config.protocol.rounds)
    learned = {"learner": 0.0}
    try:
        on_runners(_watch)
        timing.count_seconds(algorithm.learner_group, "update", learned, "learner")
        algorithm.train()
        on_runners(_forget)
        learned["learner"] = 0.0
        for _ in range(iterations):
            began = time.perf_counter()
            algorithm.train()
            found.seconds.append(time.perf_counter() - began)
        spent = on_runners(_spent)
        found.spent = {key: float(np.mean([s[key] for s in spent])) / iterations for key in spent[0]}
        found.spent["learner"] = learned["learner"] / iterations
        found.spent["rest"] = float(np.mean(found.seconds)) - sum(found.spent.values())
        found.memory["driver"] = [memory_of(os.getpid())]
        found.memory["runner"] = [memory_of(pid) for pid in on_runners(_pid)] if remote else []
        if config.resources.num_learners:
            answers = algorithm.learner_group.foreach_learner(_pid)
            found.memory["learner"] = [memory_of(answer.get()) for answer in answers]
        driver, learner = config.trainer.learning_bytes(config)
        found.predicted["driver"], found.predicted["learner"] = DRIVER + driver, RLLIB + learner
        found.predicted["runner"] = runner_bytes(config, [size_of(pool, config) for pool in opened(config)])
    finally:
        algorithm.stop()
    return found


def evolution_run(settings: dict[str, Any], generations: int) -> Measured:
    """Generations of the evolution strategy; the first one is not counted."""
    config = build(TrainConfig, merge(settings, {"algorithm": "evolution"}))
    with local_ray(config.resources.processes):
        return _evolution_run(config, generations)


def _evolution_run(config: TrainConfig, generations: int) -> Measured:
    trainer = EvolutionTrainer(config, policy_card(config, opened(config)))
    evolution = config.evolution
    played = (evolution.population + 2) * evolution.starts * len(config.datasets)
    found = Measured(played * config.protocol.rounds)
    trainer.step()
    for _ in range(generations):
        began = time.perf_counter()
        trainer.step()
        found.seconds.append(time.perf_counter() - began)
    trainer.stop()
    return found


def apart(work: Callable[[dict[str, Any], int], Measured], settings: dict[str, Any], iterations: int) -> Measured:
    """The same in a process and a Ray of its own, whose memory no earlier run has touched."""
    one = json.dumps([work.__name__, settings, iterations])
    command = [sys.executable, "-m", "benchmarks.scaling", "--one", one]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def memory_of(pid: int) -> dict[str, float]:
    """Bytes that a process holds: rss, pss (shared pages divided among those that share them), peak (highest rss)."""
    found = {"rss": np.nan, "pss": np.nan, "peak": np.nan}
    names = {"VmRSS": "rss", "VmHWM": "peak", "Pss": "pss"}
    for file in ("status", "smaps_rollup"):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in names:
                found[names[name]] = int(value.split()[0]) * 1024.0
    return found


def _watch(runner: Any) -> None:
    """Count, on an environment runner, the seconds spent in the environment and in drawing."""
    from envs.multimodal_al import VectorMultimodalALEnv
    from policies.selector import Selector

    _forget(runner)
    timing.count_seconds(VectorMultimodalALEnv, "step", timing.SPENT, "environment")  # resets are steps: autoreset
    timing.count_seconds(Selector, "sample_with_gradient", timing.SPENT, "policy")


def _spent(runner: Any) -> dict[str, float]:
    return dict(timing.SPENT)


def _forget(runner: Any) -> None:
    timing.SPENT.update(environment=0.0, policy=0.0)


def _pid(worker: Any) -> int:
    return os.getpid()


def runners_part(dataset: str, iterations: int) -> None:
    """Environment runners and learners: rounds/s, shares, memory."""
    measured = {}
    for runners, learners in LAYOUTS:
        resources = {"num_env_runners": runners, "num_learners": learners}
        settings = {"datasets": [dataset], "resources": resources}
        measured[runners, learners] = apart(gradient_run, settings, iterations)
    single = measured[LAYOUTS[0]].rate
    print(f"\n{dataset}, an iteration of {measured[LAYOUTS[0]].rounds} rounds, {iterations} iterations\n")
    titles = ["env runners", "learners", "rounds/s", "ratio", "environment", "policy", "learner", "rest"]
    print(markdown.head(titles, left=(1,)))
    for (runners, learners), found in measured.items():
        low, high = found.rounds / max(found.seconds), found.rounds / min(found.seconds)
        shares = [f"{found.share(key):.0f} %" for key in ("environment", "policy", "learner", "rest")]
        where = f"{learners} remote" if learners else "driver"
        rate = f"{found.rate:.0f} ({low:.0f} to {high:.0f})"
        print(markdown.row([runners, where, rate, f"{found.rate / single:.2f}", *shares]))
    print()
    print(markdown.head(["process", "RSS, MB", "highest RSS, MB", "PSS, MB", "expected, MB"]))
    for name, layout, kind in (
        ("runner, of 1", (1, 0), "runner"),
        ("runner, of 2", (2, 0), "runner"),
        ("driver that learns, 2 runners", (2, 0), "driver"),
        ("driver, 1 remote learner", (2, 1), "driver"),
        ("remote learner, of 1", (2, 1), "learner"),
        ("remote learner, of 2", (2, 2), "learner"),
    ):
        found = measured[layout]
        held = [f"{found.held(kind, what):.0f}" for what in ("rss", "peak", "pss")]
        print(markdown.row([name, *held, f"{found.predicted[kind] / MB:.0f}"]))
    evolution = {}
    for n in (1, 2):
        settings = {"datasets": [dataset], "resources": {"num_env_runners": n}, "evolution": {"starts": 4}}
        evolution[n] = apart(evolution_run, settings, iterations)
    print()
    print(markdown.head(["evolution: processes", "rounds/s", "ratio"], left=()))
    for n, found in evolution.items():
        print(markdown.row([n, f"{found.rate:.0f}", f"{found.rate / evolution[1].rate:.2f}"]), flush=True)


def growth_part(base: dict[str, int], growth: dict[str, tuple[int, ...]]) -> None:
    """How one runner's rounds/s and memory grow with pool, episodes and candidates."""
    sizes = [base] + [base | {name: value} for name, values in growth.items() for value in values]
    print(f"\none runner; synthetic pools, 2 modalities x 32, 10 classes; {GROWTH_ROUNDS} rounds of 10 labels\n")
    memory = ["highest RSS, MB", "PSS, MB", "expected, MB"]
    titles = ["N", "E", "K", "rounds/s", *memory, "crosses to the learner, kB a round"]
    print(markdown.head(titles, left=()))
    for size in sizes:
        settings = {
            "datasets": [f"synthetic:samples={size['N']},classes=10,modalities=2,dim=32,seed=1"],
            "protocol": {"rounds": GROWTH_ROUNDS, "batch_size": 10},
            "candidates": {"per_pick": size["K"] // 10},
            "learner": {"copies": 16, "groups": size["E"] // 16},
            "resources": {"num_env_runners": 1},
        }
        found = gradient_run(settings, 2)
        crossing = sent_bytes(build(TrainConfig, settings)) / 1e3
        held = [f"{found.held('runner', what):.0f}" for what in ("peak", "pss")]
        figures = [f"{found.rate:.0f}", *held, f"{found.predicted['runner'] / MB:.0f}", f"{crossing:.0f}"]
        print(markdown.row([f"{size['N']:,}", size["E"], f"{size['K']:,}", *figures]), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--part", choices=("runners", "growth"), help="default: both")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.one:
        name, settings, iterations = json.loads(args.one)
        work = {"gradient_run": gradient_run, "evolution_run": evolution_run}[name]
        print(json.dumps(asdict(work(settings, iterations))))
        return
    began = time.monotonic()
    if args.part != "growth":
        runners_part(args.dataset, args.iterations)
    if args.part != "runners":
        with local_ray(2):
            growth_part(GROWTH_BASE, GROWTH)
    print(f"\n{(time.monotonic() - began) / 60:.1f} minutes on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
