"""Evolution strategies: diagonal CMA-ES (Hansen and Ostermeier 2001; Ros and Hansen 2008) on a linear policy's weights.

In a generation every source plays some starts; all candidates of the population, the population's mean and the
initial policy play each of them, greedily. What is exported is the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cma
import numpy as np
import ray
import torch

from envs.errors import ConfigError, PolicyError
from envs.models.base import TaskTrainer
from envs.names import unique_names
from envs.pools import Pool
from envs.pools.oversampling import oversample
from envs.pools.partition import Start, partition, training_roles
from envs.randomness import start_seed, stream
from envs.reading import read_arrays, reading
from envs.simulation import ProtocolConfig
from envs.source import draw_start, open_source, training_starts, training_trainer
from envs.sources import is_family
from learners.algorithms.base import UNREADABLE, Say, Trainer, silent
from learners.algorithms.population import (
    Arena,
    draw_protocol,
    play_population,
    population_fitness,
)
from policies.averaging import rescaled
from policies.policy_file import PolicyCard
from policies.selector import Selector
from policies.start import initial_selector
from runtime.array_store import ArrayStore
from runtime.tasks import Workers, in_parallel, remote_task

if TYPE_CHECKING:
    from learners.settings import ResourceConfig, TrainConfig

STARTS_PER_TASK = 2  # played in one lockstep; fixed, so that results do not depend on the number of processes

_STATE = "evolution"  # file of a checkpoint
_Figures = dict[str, np.ndarray]


class Search:
    """CMA-ES by the pycma library, with random numbers of its own.

    Args:
        initial: float64 [n], the first mean.
        sigma0: standard deviation of the first generation.
        population: P.
        seed: decides, together with what is told, everything that is asked.
    """

    def __init__(self, initial: np.ndarray, sigma0: float, population: int, seed: int):
        rng = stream(seed, "evolution: search")
        options = {
            "CMA_diagonal": True,
            "popsize": population,
            "randn": lambda *shape: rng.standard_normal(shape),  # pycma would seed numpy's global generator
            "seed": float("nan"),
            "verbose": -9,
        }
        self._strategy = cma.CMAEvolutionStrategy(initial, sigma0, options)
        self.told: list[np.ndarray] = []  # fitness [P] by generation

    def ask(self) -> np.ndarray:
        """The next population, [P, n]."""
        self._asked = self._strategy.ask()
        return np.stack(self._asked)

    def tell(self, fitness: np.ndarray) -> None:
        """Fitness [P] of the population that was asked last; larger is better."""
        self._strategy.tell(self._asked, (-fitness).tolist())
        self.told.append(np.asarray(fitness, np.float64))

    @property
    def mean(self) -> np.ndarray:
        """The mean of the distribution, [n]."""
        return np.array(self._strategy.mean)

    @property
    def deviations(self) -> np.ndarray:
        """Standard deviations of the distribution, [n]."""
        return np.array(self._strategy.stds)


class Players:
    """Where populations play: in this process, or in Ray tasks, so many at a time.

    Args:
        resources: 0 environment runners play here.
    """

    def __init__(self, resources: ResourceConfig):
        at_once, gpus = resources.num_env_runners, resources.num_gpus_per_env_runner
        self._task = remote_task(play_population, gpus) if at_once else None
        self._workers = Workers(
            at_once,
            resources.patience_s,
            name="process that plays episodes",
            if_they_die="try fewer of them",
            if_they_hang="see whether they hang, or set resources.patience_s higher and --resume",
        )

    def share(self, trainer: TaskTrainer) -> TaskTrainer | ray.ObjectRef:
        """The trainer for `play_population`: itself, or stored in Ray once for all players."""
        return trainer if self._task is None else ray.put(trainer)

    def play(self, jobs: Sequence[tuple[Any, ...]]) -> list[_Figures]:
        """What `play_population` gives for each of these arguments, in their order.

        Raises:
            RLMBAError: as `in_parallel` does.
        """
        task = self._task
        if task is None:
            return [play_population(*job) for job in jobs]
        numbers = range(len(jobs))
        with closing(in_parallel(numbers, lambda n: task.remote(*jobs[n]), self._workers)) as played:
            results = dict(played)
        return [results[n] for n in numbers]


@dataclass(frozen=True)
class _Opened:
    """A source that is open: all the time, or a pool of a family for one generation."""

    pool: Pool
    trainer: TaskTrainer | ray.ObjectRef


@dataclass(frozen=True)
class _Ground:
    """Where a generation plays, and counts as much as anywhere else."""

    name: str
    number: int  # of the data set
    oversampled: int = 0  # which of the pools made of its rows; 0: its own rows


class EvolutionTrainer(Trainer):
    """Training by evolution strategies, a generation at a time."""

    played = "the population's mean, greedy, on reward rows"
    verb = "searches"

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        if not config.policy.only_linear:
            raise ConfigError(
                f"Evolution searches the weights of a linear policy, and policy.mlp is {list(config.policy.mlp)}; "
                "leave it empty, or train by --algorithm reinforce."
            )

    @classmethod
    def iterations(cls, config: TrainConfig) -> int:
        return config.evolution.generations

    @classmethod
    def until(cls, config: TrainConfig, iterations: int) -> TrainConfig:
        return replace(config, evolution=replace(config.evolution, generations=iterations))

    @classmethod
    def together(cls, config: TrainConfig) -> tuple[int, int]:
        return min(config.evolution.starts, STARTS_PER_TASK), config.evolution.population + 2

    def __init__(self, config: TrainConfig, card: PolicyCard, done: int = 0, say: Say = silent):
        super().__init__(config, card, done, say)
        weights = initial_selector(config.policy).weights.detach()
        self._shape = tuple(weights.shape)
        self._initial = weights.double().numpy().reshape(-1)
        self._search = self._new_search(self._initial)
        self._players = Players(config.resources)
        self._kept = {i: self._open(i, 0) for i, name in enumerate(config.datasets) if not is_family(name)}
        names = unique_names([source["name"] for source in card.trained_on])
        self._grounds = [_Ground(name, number) for number, name in enumerate(names)]
        for n in self._kept:
            for k in range(1, config.evolution.oversample + 1):
                self._grounds.append(_Ground(f"{names[n]}, oversampled {k}", n, oversampled=k))

    def _new_search(self, initial: np.ndarray) -> Search:
        evolution = self.config.evolution
        return Search(initial, evolution.sigma0, evolution.population, self.config.seed)

    def _open(self, number: int, generation: int) -> _Opened:
        rng = stream(self.config.seed, "evolution: pools", generation, number)
        pool = open_source(self.config.datasets[number], self.config.protocol, rng)
        return _Opened(pool, self._players.share(training_trainer(pool, self.config.model)))

    def step(self) -> tuple[dict[str, float], dict[str, float]]:
        """One generation; its figures, and where its time went."""
        generation = len(self._search.told)
        candidates = self._search.ask()
        weights = np.concatenate([candidates, [self._search.mean, self._initial]])
        played = self._play(generation, weights.reshape(-1, *self._shape).astype(np.float32))
        returns = [figures["return"][:, : len(candidates)] for figures in played]
        self._search.tell(population_fitness(returns))
        return self._summarise(played, returns), {}

    def _play(self, generation: int, weights: np.ndarray) -> list[_Figures]:
        """Figures [S, P + 2] of each ground."""
        config = self.config
        jobs: list[tuple[Any, ...]] = []
        owner: list[_Ground] = []
        for ground in self._grounds:
            trainer, protocol, starts = self._begin(ground, generation)
            arena = Arena(protocol, config.candidates, config.reward, config.policy)
            for low in range(0, len(starts), STARTS_PER_TASK):
                jobs.append((trainer, starts[low : low + STARTS_PER_TASK], arena, weights))
                owner.append(ground)
        results = self._players.play(jobs)
        joined = []
        for ground in self._grounds:
            parts = [result for result, mine in zip(results, owner, strict=True) if mine is ground]
            joined.append({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        return joined

    def _begin(
        self, ground: _Ground, generation: int
    ) -> tuple[TaskTrainer | ray.ObjectRef, ProtocolConfig, list[Start]]:
        """The episodes of a generation: the next starts of the run's, from the first again after the last."""
        evolution, protocol, number = self.config.evolution, self.config.protocol, ground.number
        first = generation * evolution.starts
        numbers = [i % self.config.starts for i in range(first, first + evolution.starts)]
        seeds = [start_seed(self.config.seed, i) for i in numbers]
        if ground.oversampled:
            rng = stream(self.config.seed, "evolution: oversampling", generation, number, ground.oversampled)
            protocol = draw_protocol(rng, protocol) if evolution.vary_protocol else protocol
            base = self._kept[number].pool
            roles = training_roles(base, int(rng.integers(2**31)))
            pool, roles = oversample(base, roles, protocol.budget, rng)
            trainer = self.config.model.trainer(pool, np.arange(pool.num_samples))
            return self._players.share(trainer), protocol, [draw_start(roles, seed, protocol) for seed in seeds]
        source = self._kept.get(number)
        if source is None:
            source = self._open(number, generation)
            self._count_labels(number, len(partition(source.pool).policy))
        if evolution.vary_protocol:
            rng = stream(self.config.seed, "evolution: protocols", generation, number)
            rows = len(training_starts(source.pool, protocol, seeds[:1])[0].roles.pool)
            protocol = draw_protocol(rng, protocol, rows)
        return source.trainer, protocol, training_starts(source.pool, protocol, seeds)

    def _count_labels(self, number: int, labels: int) -> None:
        self.card.trained_on[number]["labels"] += labels
        self.card.labels_used += labels

    def _summarise(self, played: list[_Figures], returns: list[np.ndarray]) -> dict[str, float]:
        """Means over grounds: of the mean's figures, and how far it is above the initial policy; and by ground."""
        figures: dict[str, float] = {}
        mean, initial = -2, -1  # columns
        for name in ("return", "accuracy", "soft_accuracy", "hard_accuracy", "weakest_modality"):
            figures[name] = float(np.mean([p[name][:, mean].mean() for p in played]))
        figures["aulc"] = figures["accuracy"]
        gains = [float((p["accuracy"][:, mean] - p["accuracy"][:, initial]).mean()) for p in played]
        figures["aulc_minus/initial"] = float(np.mean(gains))
        for ground, p, r, gain in zip(self._grounds, played, returns, gains, strict=True):
            name = ground.name
            figures[f"source_aulc/{name}"] = float(p["accuracy"][:, mean].mean())
            figures[f"source_aulc_minus/initial/{name}"] = gain
            spread = r - r.mean(1, keepdims=True)
            figures[f"source_return_spread/{name}"] = float(spread.std())
            self.histograms[f"population_return/{name}"] = spread
        figures["evolution/deviation"] = float(np.sqrt(np.mean(self._search.deviations**2)))
        figures["evolution/distance_from_initial"] = float(np.linalg.norm(self._search.mean - self._initial))
        return figures | {"episodes": float(sum(p["return"].size for p in played))}

    def selector(self) -> Selector:
        """The policy to export: the mean, with the norm that averages have too."""
        selector = Selector(self.config.policy)
        with torch.no_grad():
            selector.weights.copy_(rescaled(torch.from_numpy(self._search.mean).reshape(self._shape)))
        return selector

    def save(self, folder: str) -> None:
        """Write what was told; what was asked follows from it and from the seed."""
        told = np.reshape(self._search.told, (-1, self.config.evolution.population))
        labels = np.array([source["labels"] for source in self.card.trained_on], np.int64)
        arrays = {"told": told, "mean": self._search.mean, "labels": labels, "initial": self._initial}
        ArrayStore(folder).put(_STATE, arrays)

    def restore(self, checkpoint: Path) -> None:
        """Search again as far as a checkpoint goes, without playing.

        Raises:
            PolicyError: where it cannot be read, or leads elsewhere.
        """
        with reading(checkpoint, UNREADABLE, PolicyError):
            state = read_arrays(ArrayStore(checkpoint).path(_STATE))
            if lacks := {"told", "mean", "labels"} - state.keys():
                raise ValueError(f"it lacks {', '.join(sorted(lacks))}")
        # As it was when the run began: another version may ship another policy. Earlier checkpoints do not hold it.
        initial = state.get("initial", self._initial)
        try:
            search = self._new_search(initial.reshape(self._initial.shape))
            for fitness in state["told"]:
                search.ask()
                search.tell(fitness)
            same = np.allclose(search.mean, state["mean"], rtol=1e-6, atol=1e-9)
            sources = list(zip(self.card.trained_on, map(int, state["labels"].tolist()), strict=True))
        except Exception:  # arrays of another run's shape or type
            same = False
        if not same:
            raise PolicyError(
                f"The checkpoint {checkpoint} does not lead to the weights that it names: it belongs to other "
                f"settings or to another version of cma or numpy. Train into a new --out."
            )
        self._search, self._initial = search, initial
        for source, labels in sources:
            source["labels"] = labels
        self.card.labels_used = sum(source["labels"] for source in self.card.trained_on)

    def stop(self) -> None:
        """Drop the open sources, whose rows Ray then frees."""
        self._kept.clear()
