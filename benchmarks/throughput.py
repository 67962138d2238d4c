"""Rounds per second of the environment on one core, and the share of an iteration that RLlib adds.

    python -m benchmarks.throughput [--dataset digits] [--repeats 5]

A round is: draw a batch with the policy, label it, retrain the task models, measure them, describe the next
candidates. Sizes are measured in turn, `repeats` times; the median is reported, with the range.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from envs.multimodal_al import EnvConfig, VectorMultimodalALEnv
from envs.task_model import TaskModelConfig
from policies.selector import Selector, SelectorConfig

SIZES = (1, 8, 32)


def rounds_per_second(dataset: str, sizes: tuple[int, ...], repeats: int) -> dict[int, list[float]]:
    """Episodes in lockstep -> rounds per second, one figure per repeat."""
    selector = Selector(SelectorConfig())
    environments = {
        e: VectorMultimodalALEnv(EnvConfig(datasets=(dataset,), copies=min(e, 16)), num_envs=e) for e in sizes
    }
    for environment in environments.values():
        _play(environment, selector, 1)
    figures: dict[int, list[float]] = {e: [] for e in sizes}
    for _ in range(repeats):
        for e, environment in environments.items():
            episodes = max(1, 16 // e)
            began = time.perf_counter()
            _play(environment, selector, episodes)
            played = episodes * e * environment.config.protocol.rounds
            figures[e].append(played / (time.perf_counter() - began))
    return figures


def _play(environment: VectorMultimodalALEnv, selector: Selector, episodes: int) -> None:
    batch = environment.config.protocol.batch_size
    for _ in range(episodes):
        observation, _ = environment.reset()
        for _ in range(environment.config.protocol.rounds):
            tensors = {k: torch.from_numpy(v) for k, v in observation.items()}
            picks, _ = selector.select(tensors, batch, greedy=False)
            observation, *_ = environment.step(picks.numpy())


def training_floor(dataset: str) -> float:
    """Multiply-adds (as 2 operations) per round that training alone needs, in millions, at the mean label count."""
    environment = VectorMultimodalALEnv(EnvConfig(datasets=(dataset,)), num_envs=1)
    lockstep = environment.sources[0].lockstep
    modalities, inputs, _ = lockstep.data.x.shape
    classes, model, protocol = lockstep.data.num_classes, TaskModelConfig(), environment.config.protocol
    labels = protocol.initial_labels + protocol.batch_size * (protocol.rounds + 1) / 2
    # forward: encoder, two heads; backward: two heads' weights, two heads' inputs, encoder's weights
    per_row = modalities * model.hidden * (2 * inputs + 6 * classes)
    return 2 * per_row * labels * model.steps / 1e6


def rllib_share(dataset: str, iterations: int) -> dict[str, float]:
    """Seconds per training iteration, without remote runners, by who spends them."""
    from learners.runtime import local_ray
    from learners.settings import TrainConfig, build
    from learners.training import make_algorithm

    spent = {"environment": 0.0, "policy": 0.0}

    def timed(owner: type, method: str, key: str) -> None:
        plain = getattr(owner, method)

        def measured(self, *args, **kwargs):
            began = time.perf_counter()
            try:
                return plain(self, *args, **kwargs)
            finally:
                spent[key] += time.perf_counter() - began

        setattr(owner, method, measured)

    timed(VectorMultimodalALEnv, "step", "environment")  # a reset is part of a step: autoreset
    timed(Selector, "select", "policy")
    timed(Selector, "log_probability", "policy")
    config = build(TrainConfig, {"datasets": [dataset], "resources": {"num_env_runners": 0}})
    with local_ray(1):
        algorithm = make_algorithm(config, {})
        algorithm.train()
        for key in spent:
            spent[key] = 0.0
        began = time.perf_counter()
        for _ in range(iterations):
            algorithm.train()
        total = time.perf_counter() - began
        algorithm.stop()
    seconds = {key: value / iterations for key, value in spent.items()}
    return seconds | {"RLlib and gradients": total / iterations - sum(seconds.values())}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    figures = rounds_per_second(args.dataset, SIZES, args.repeats)
    single = np.median(figures[SIZES[0]])
    print(f"{args.dataset}, one core, {args.repeats} repeats")
    for e, values in figures.items():
        median = np.median(values)
        print(
            f"  E = {e:2d}: {median:6.1f} rounds/s ({min(values):.1f} to {max(values):.1f}), "
            f"{median / single:.1f} x E = {SIZES[0]}"
        )
    print(f"  training a round's model needs {training_floor(args.dataset):.0f} million operations")
    seconds = rllib_share(args.dataset, 5)
    total = sum(seconds.values())
    print("an iteration of 960 rounds in one process:")
    for key, value in seconds.items():
        print(f"  {key:20s} {value:6.2f} s  {100 * value / total:4.1f} %")


if __name__ == "__main__":
    main()
