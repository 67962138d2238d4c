"""Episodes of one strategy on some seeds, recorded round by round. Runs inside a worker; imports no ray."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from envs.errors import StrategyError
from envs.models.base import TaskTrainer
from envs.pools.partition import Start
from envs.round import Round, Stopwatch
from envs.simulation import InvalidPicks, ProtocolConfig, Simulation
from evaluation.runs import Runs
from policies.strategies import Strategy
from runtime.memory import with_peak_memory

T = TypeVar("T")

_SECONDS = ("seconds_inference", "seconds_scoring", "seconds_picking", "seconds_train")


def play(simulation: Simulation, starts: Sequence[Start], name: str, strategy: Strategy) -> Runs:
    """Play all rounds from these starts.

    Args:
        name: of the strategy, for messages.

    Raises:
        StrategyError: where the strategy does not return a valid batch.
    """
    simulation.reset(starts)
    models = _model_hashes(simulation)
    count = len(starts)
    records = [_record(simulation, dict.fromkeys(_SECONDS, np.nan))]
    picked: list[np.ndarray] = []
    clock = _Clock(name, strategy)
    try:
        for step in simulation.play(clock):
            picked.append(step.picks.cpu().numpy())
            records.append(_record(simulation, {k: v / count for k, v in clock.seconds().items()}))
    except InvalidPicks as error:
        raise StrategyError(f"Strategy '{name}' did not return a valid batch: {error}.") from error
    rows = [s.roles.pool for s in starts]
    return Runs(
        seeds=np.array([s.seed for s in starts], np.int64),
        starts=np.array([s.digest for s in starts]),
        models=np.array(models),
        **{k: np.stack([r[k] for r in records], 1) for k in records[0]},
        all_labels_accuracy=_to_array(simulation.reference_accuracy),
        initial=np.stack([r[s.initial] for r, s in zip(rows, starts, strict=True)]),
        picked=np.stack([np.stack([r[p[e]] for p in picked]) for e, r in enumerate(rows)]),
        peak_memory=np.full(count, clock.peak),
    )


def play_on(simulation: Simulation, given: str, *args: Any) -> Runs:
    """`play`, whose StrategyError says on which data set, as the user named it."""
    try:
        return play(simulation, *args)
    except StrategyError as error:
        raise StrategyError(f"On '{given}': {error}") from None


def rehearse(simulation: Simulation, start: Start, strategies: Mapping[str, Strategy]) -> list[str]:
    """Let each strategy pick one batch, so that one that cannot work on a data set says so before the long work.

    Returns:
        what the strategies say that refuse.
    """
    round_ = simulation.reset([start])
    refusals = []
    for name, strategy in strategies.items():
        try:
            _select(name, strategy, replace(round_, stopwatch=Stopwatch()), simulation.protocol.batch_size)
        except StrategyError as error:
            refusals.append(str(error))
    return refusals


def call_with_simulation(function: Callable[..., T], trainer: TaskTrainer, protocol: ProtocolConfig, *args: Any) -> T:
    """`play_on` or `rehearse` with one thread: the body of a worker's task."""
    torch.set_num_threads(1)
    return function(Simulation(trainer, protocol), *args)


class _Clock:
    """A strategy that takes note of the seconds of each batch, and of the memory that the first one needs."""

    def __init__(self, name: str, strategy: Strategy):
        self.name, self.strategy = name, strategy
        self.peak = np.nan  # bytes
        self._seconds: dict[str, float] = {}
        self._chosen = 0.0  # when the last batch was there

    def __call__(self, round_: Round, batch_size: int) -> torch.Tensor:
        def select() -> tuple[torch.Tensor, dict[str, float]]:
            return _select(self.name, self.strategy, round_, batch_size)

        if not self._seconds:  # once: giving free memory back slows what comes after it
            (picks, self._seconds), self.peak = with_peak_memory(select)
        else:
            picks, self._seconds = select()
        self._chosen = time.perf_counter()
        return picks

    def seconds(self) -> dict[str, float]:
        """The seconds of the last batch by kind; training with it is what has passed since."""
        return self._seconds | {"seconds_train": time.perf_counter() - self._chosen}


def _select(name: str, strategy: Strategy, round_: Round, batch_size: int) -> tuple[torch.Tensor, dict[str, float]]:
    """A strategy's picks [S, b], and the seconds that they took by kind."""
    began = time.perf_counter()
    picks = strategy(round_, batch_size)
    total = time.perf_counter() - began
    shape, expected = tuple(getattr(picks, "shape", ())), (round_.episodes, batch_size)
    if shape != expected:
        raise StrategyError(f"Strategy '{name}' returned picks of shape {list(shape)}, not {list(expected)}.")
    inference, picking = (round_.stopwatch.seconds[kind] for kind in ("inference", "picking"))
    scoring = max(total - inference - picking, 0.0)
    return picks, {"seconds_inference": inference, "seconds_scoring": scoring, "seconds_picking": picking}


def _to_array(values: torch.Tensor) -> np.ndarray:
    """Values with the seven decimals that single precision has, so that equal counts stay equal in sums."""
    return values.double().cpu().numpy().round(7)


def _record(simulation: Simulation, seconds: dict[str, float]) -> dict[str, np.ndarray]:
    """The current round in numbers, [S] or [S, M] each."""
    m, round_ = simulation.measure(), simulation.round
    values = {
        "accuracy": m.accuracy,
        "soft_accuracy": m.soft_accuracy,
        "hard_accuracy": m.hard_accuracy,
        "class_coverage": _coverage(round_),
        "modality_accuracy": m.modality_accuracy,
        "weights": round_.weights,
        "shapley": simulation.contributions(),
    }
    times = {k: np.full(round_.episodes, seconds[k]) for k in _SECONDS}
    return {k: _to_array(v) for k, v in values.items()} | times


def _coverage(round_: Round) -> torch.Tensor:
    """Share of the classes that have a label, [E]."""
    return torch.nn.functional.one_hot(round_.labels, round_.num_classes).amax(1).double().mean(1)


def _model_hashes(simulation: Simulation) -> list[str]:
    """A hash for each start: which held-out rows its round-zero model gets right, and by which head."""
    results = simulation.results
    hashes = []
    for correct, own in zip(results.correct.cpu().numpy(), results.modality_correct.cpu().numpy(), strict=True):
        h = hashlib.sha256(np.packbits(correct > 0).tobytes())
        h.update(np.packbits(own).tobytes())
        hashes.append(h.hexdigest()[:16])
    return hashes
