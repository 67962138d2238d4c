"""Learning curves of the paired baselines that rewards are relative to, computed before training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import ray
import torch

from envs.multimodal_al import EnvConfig, Source
from policies.strategies import get_strategy

CHUNK = 16  # starts that one task plays in lockstep


def baseline_curves(
    config: EnvConfig, strategies: tuple[str, ...], progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, np.ndarray]:
    """Accuracy on the reward rows of every strategy on every start.

    Args:
        config: the environment's configuration; its starts are played.
        strategies: names.
        progress: called with tasks done and tasks in all.

    Returns:
        strategy -> float32 [sources, starts, T + 1], by round from 0.
    """
    tasks = {}
    for strategy in strategies:
        for d in range(len(config.datasets)):
            for low in range(0, config.starts, CHUNK):
                numbers = list(range(low, min(low + CHUNK, config.starts)))
                tasks[_play.remote(config, d, strategy, numbers)] = (strategy, d, slice(low, low + len(numbers)))
    shape = (len(config.datasets), config.starts, config.protocol.rounds + 1)
    curves = {strategy: np.zeros(shape, np.float32) for strategy in strategies}
    waiting, total = list(tasks), len(tasks)
    while waiting:
        done, waiting = ray.wait(waiting)
        for task in done:
            strategy, source, starts = tasks[task]
            curves[strategy][source, starts] = ray.get(task)
        progress(total - len(waiting), total)
    return curves


@ray.remote(num_cpus=1)
def _play(config: EnvConfig, source_number: int, strategy: str, numbers: list[int]) -> np.ndarray:
    """Curves [starts, T + 1] of one strategy."""
    torch.set_num_threads(1)
    source = Source(config, config.datasets[source_number])
    select = get_strategy(strategy)
    lockstep = source.lockstep
    round_ = lockstep.reset([source.start(i) for i in numbers])
    accuracies = [lockstep.measure().accuracy]
    for _ in range(config.protocol.rounds):
        round_ = lockstep.label(select(round_, config.protocol.batch_size))
        accuracies.append(lockstep.measure().accuracy)
    return torch.stack(accuracies, 1).cpu().numpy()
