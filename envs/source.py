"""From a data set's name to a simulation with starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from envs.errors import ConfigError
from envs.models.base import TaskModelConfig, TaskTrainer
from envs.pools import Pool
from envs.pools.partition import Roles, Start, evaluation_roles, partition, training_roles
from envs.randomness import start_seed, stream
from envs.simulation import ProtocolConfig, Simulation
from envs.sources import draw_from_family, is_family, open_dataset

_DRAWS = 100  # attempts at a pool of a family that fits


def check_policy_half(pool: Pool, protocol: ProtocolConfig) -> None:
    """Raise ConfigError where the half of a pool that trains policies cannot supply the protocol's budget."""
    protocol.check_budget(len(training_roles(pool, 0).pool), f"'{pool.name}' (half of it trains policies)")


def open_pool(
    name: str,
    rng: np.random.Generator,
    check: Callable[[Pool], None],
) -> tuple[str, Pool]:
    """The data set of that name, and the name itself; of a family a pool drawn from it that `check` lets pass.

    Raises:
        ConfigError: that of `check`, where the data set, or every pool that was drawn, fails it.
    """
    family = is_family(name)
    for left in reversed(range(_DRAWS if family else 1)):
        drawn = draw_from_family(name, rng) if family else name
        pool = open_dataset(drawn)
        try:
            check(pool)
            break
        except ConfigError:
            if not left:
                raise
    return drawn, pool


def open_source(name: str, protocol: ProtocolConfig, rng: np.random.Generator) -> Pool:
    """The pool of that name to train policies on; of a family one drawn from it whose budget it can supply.

    Raises:
        ConfigError: where it cannot supply the protocol's budget.
    """
    return open_pool(name, rng, lambda pool: check_policy_half(pool, protocol))[1]


def draw_start(roles: Roles, seed: int, protocol: ProtocolConfig) -> Start:
    """Draw the initial labels at random, as somebody who knows no label must."""
    rng = stream(seed, "initial labels")
    return Start(seed, roles, np.sort(rng.choice(len(roles.pool), protocol.initial_labels, replace=False)))


def training_starts(pool: Pool, protocol: ProtocolConfig, seeds: Sequence[int]) -> list[Start]:
    """Starts on the policy half of a pool."""
    return [draw_start(training_roles(pool, seed), seed, protocol) for seed in seeds]


def evaluation_starts(pool: Pool, protocol: ProtocolConfig, seeds: Sequence[int]) -> list[Start]:
    """Starts on the evaluation half of a pool, scored on its test rows."""
    return [draw_start(evaluation_roles(pool, seed), seed, protocol) for seed in seeds]


def training_trainer(pool: Pool, model: TaskModelConfig, device: str = "cpu") -> TaskTrainer:
    """A trainer for `training_starts`."""
    return model.trainer(pool, partition(pool).policy, device=torch_device(device))


def evaluation_trainer(pool: Pool, model: TaskModelConfig, device: str = "cpu") -> TaskTrainer:
    """A trainer for `evaluation_starts`; nothing is fitted on the test rows."""
    parts = partition(pool)
    return model.trainer(pool, parts.evaluation, parts.test, torch_device(device))


def torch_device(name: str) -> str:
    """A torch device; for "auto" the GPU that this process may use, else the CPU.

    Raises:
        ConfigError: where torch knows no such device, or cannot use it here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).tolist()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        why = str(error).strip().split("\n")[0].rstrip(".")
        raise ConfigError(
            f"env.device is {name!r}, which torch cannot use here ({why}); write 'cpu' or 'auto'."
        ) from None
    return name


class Source:
    """A data set that policies train on, with its episode starts; of a family, the pool drawn last.

    Args:
        dataset: name, path or family.
        model, protocol: of the simulation.
        seed: decides the starts, and the first pool of a family.
        device: a torch device, or "auto".
    """

    def __init__(
        self, dataset: str, model: TaskModelConfig, protocol: ProtocolConfig, seed: int = 0, device: str = "cpu"
    ):
        self.dataset, self.model, self.protocol, self.seed, self.device = dataset, model, protocol, seed, device
        self.family = is_family(dataset)
        self.draw(seed)

    def draw(self, number: int) -> None:
        """Open the data set; of a family the pool that `number` decides."""
        self.number = number if self.family else 0
        self.pool = open_source(self.dataset, self.protocol, np.random.default_rng(number))
        self.labels = len(partition(self.pool).policy)
        self.simulation = Simulation(training_trainer(self.pool, self.model, self.device), self.protocol)
        self._drawn: dict[int, Start] = {}

    def start(self, index: int) -> Start:
        """Start number `index`."""
        if index not in self._drawn:
            seed = start_seed(self.seed, index)
            self._drawn[index] = training_starts(self.pool, self.protocol, [seed])[0]
        return self._drawn[index]
