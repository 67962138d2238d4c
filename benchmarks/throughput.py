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

from benchmarks.timing import count_seconds
from envs.models.frozen.fitting import CPU_BLOCK
from envs.models.frozen.trainer import FrozenConfig, FrozenTrainer
from envs.multimodal_al import EnvConfig, VectorMultimodalALEnv
from policies.selector import Selector, SelectorConfig
from policies.start import initial_selector

SIZES = (1, 8, 32)


def rounds_per_second(dataset: str, sizes: tuple[int, ...], repeats: int) -> dict[int, list[float]]:
    """Episodes in lockstep -> rounds per second, one figure per repeat."""
    selector = initial_selector(SelectorConfig())
    environments = {
        e: VectorMultimodalALEnv(EnvConfig(datasets=(dataset,), copies=min(e, 16)), num_envs=e) for e in sizes
    }
    for environment in environments.values():
        environment.reset(seed=0)  # the same episodes whenever it is run
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
            picks, _ = selector.sample(tensors, batch)
            observation, *_ = environment.step(picks.numpy())


def training_products(dataset: str, repeats: int) -> tuple[float, float]:
    """What training's matrix products alone take, per round of an episode: million operations, and milliseconds.

    The products are those of `envs.models.frozen.model`, at the mean label count, for as many episodes as it trains
    together; a multiply-add counts as 2 operations.
    """
    environment = VectorMultimodalALEnv(EnvConfig(datasets=(dataset,)), num_envs=1)
    trainer = environment.sources[0].simulation.trainer
    assert isinstance(trainer, FrozenTrainer)
    data = trainer.data
    (modalities, inputs, _), classes = data.x.shape, data.num_classes
    hidden, steps, protocol = FrozenConfig().hidden, FrozenConfig().steps, environment.config.protocol
    rows = round(protocol.initial_labels + protocol.batch_size * (protocol.rounds + 1) / 2)
    heads = CPU_BLOCK * modalities
    x, w, a = torch.randn(heads, inputs, rows), torch.randn(heads, hidden, inputs), torch.randn(heads, classes, hidden)
    z, of_heads = torch.randn(heads, hidden, rows), torch.randn(heads, classes, rows)
    shared = z.view(CPU_BLOCK, modalities * hidden, rows)
    b, logits = torch.randn(CPU_BLOCK, classes, modalities * hidden), torch.randn(CPU_BLOCK, classes, rows)
    pairs = [
        (w, x),
        (a, z),
        (b, shared),
        (of_heads, z.mT),
        (logits, shared.mT),
        (a.mT, of_heads),
        (b.mT, logits),
        (z, x.mT),
    ]
    outputs = [torch.bmm(*pair) for pair in pairs]
    seconds = []
    for _ in range(20 * repeats):
        began = time.perf_counter()
        for pair, out in zip(pairs, outputs, strict=True):
            torch.bmm(*pair, out=out)
        seconds.append(time.perf_counter() - began)
    operations = sum(2 * left.shape[0] * left.shape[1] * left.shape[2] * right.shape[2] for left, right in pairs)
    return operations * steps / CPU_BLOCK / 1e6, 1e3 * float(np.median(seconds)) * steps / CPU_BLOCK


def rllib_share(dataset: str, iterations: int) -> dict[str, float]:
    """Seconds per training iteration, without remote runners, by who spends them."""
    from learners.algorithms.gradient import make_algorithm
    from learners.settings import TrainConfig, build
    from runtime.cluster import local_ray

    spent = {"environment": 0.0, "policy": 0.0}

    count_seconds(VectorMultimodalALEnv, "step", spent, "environment")  # a reset is part of a step: autoreset
    count_seconds(Selector, "sample_with_gradient", spent, "policy")
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
    return seconds | {"RLlib and learning": total / iterations - sum(seconds.values())}


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
    operations, milliseconds = training_products(args.dataset, args.repeats)
    print(
        f"  training's matrix products alone: {operations:.0f} million operations and {milliseconds:.2f} ms a round "
        f"({operations / milliseconds:.0f} GFLOP/s)"
    )
    seconds = rllib_share(args.dataset, 5)
    total = sum(seconds.values())
    print("an iteration of 960 rounds in one process:")
    for key, value in seconds.items():
        print(f"  {key:20s} {value:6.2f} s  {100 * value / total:4.1f} %")


if __name__ == "__main__":
    main()
