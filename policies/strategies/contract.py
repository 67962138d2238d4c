"""The contract of a strategy, as a check that anybody can run on one of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from envs.errors import StrategyError
from envs.models.frozen.trainer import FrozenConfig
from envs.pools import Pool
from envs.reading import first_repeated
from envs.round import Round
from envs.simulation import ProtocolConfig, Simulation
from envs.source import training_starts, training_trainer
from envs.sources import open_dataset
from policies.strategies import Strategy

_BATCH = 4
_FEW = 6  # what is left of a pool that is nearly bought
_PROTOCOL = ProtocolConfig(initial_labels=8, batch_size=_BATCH, rounds=3)

_THOROUGH = ("plain", "missing modalities")  # also a later round, and other episodes beside it
_POOLS = {
    "plain": "synthetic:samples=240,classes=4,modalities=2,dim=6,seed=1",
    "missing modalities": "synthetic:samples=240,classes=4,modalities=3,dim=5,missing=0.33,seed=2",
    "one modality": "synthetic:samples=200,classes=3,modalities=1,dim=5,seed=3",
    "one class predicted": "synthetic:samples=300,classes=3,modalities=2,dim=4,strength=0,imbalance=9,seed=4",
}


def check_strategy(select: Strategy) -> None:
    """Check that a strategy keeps the contract of `policies.strategies`, on small synthetic pools; takes seconds.

    Picks must be int64 [E, b], distinct and unlabelled; equal for the copies of a start, for another call and for
    another round from the same start; independent of the episodes beside them; and the round must stay as it is.
    The pools are plain, lack modalities, have one modality, repeat their rows, are all alike, hold a constant feature,
    or make the task models predict one class; batches hold 1, 4, 6 and all the samples that are left.

    Raises:
        StrategyError: naming what is violated, the pool and the episode.
    """
    for name, pool in contract_pools().items():
        simulation = _begin(pool, (0, 1), copies=2)
        _check_round(select, simulation.round, f"the pool '{name}'")
        if name in _THOROUGH:
            _check_neighbours(select, pool, f"the pool '{name}'")
            picks = torch.stack([row.nonzero()[:_BATCH, 0] for row in simulation.round.available])
            later = simulation.label(picks)  # the copies still agree
            _check_round(select, later, f"a later round of the pool '{name}'")


def contract_pools() -> dict[str, Pool]:
    """The pools that `check_strategy` tries, by name."""
    pools = {name: open_dataset(spec) for name, spec in _POOLS.items()}
    plain = pools["plain"]
    repeated = {m: x[np.arange(len(x)) % 5] for m, x in plain.features.items()}
    alike = {m: np.ones_like(x) for m, x in plain.features.items()}
    constant = {m: np.where(np.arange(x.shape[1]) == 0, np.float32(3.0), x) for m, x in plain.features.items()}
    return pools | {
        "five distinct rows": dataclasses.replace(plain, features=repeated),
        "all rows alike": dataclasses.replace(plain, features=alike),
        "a constant feature": dataclasses.replace(plain, features=constant),
    }


def _check_round(select: Strategy, round_: Round, where: str) -> None:
    """Check a strategy on one round of copies in pairs that have picked alike so far.

    Raises:
        StrategyError: naming what is violated, `where`, and the episode.
    """
    shown = dataclasses.replace(round_)  # what is computed from now on stays with this one
    _ = shown.outputs
    before = dict(_arrays(shown, "round_"))
    picks = _pick(select, shown, _BATCH, where)
    for path, array in _arrays(shown, "round_"):
        if path in before and array.tobytes() != before[path].tobytes():
            raise StrategyError(f"The strategy changed {path} on {where}; others look at the same round.")
    _require_equal(picks[1::2], picks[::2], f"Copies of a start got different picks on {where}", step=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = np.random.get_state()
        np.random.seed(1)
        again = _pick(select, dataclasses.replace(round_), _BATCH, where)
        np.random.set_state(state)
    _require_equal(again, picks, f"Two calls gave different picks on {where}; draw from round_.uniforms, keep no state")
    few = torch.stack([row & (row.cumsum(0) <= _FEW) for row in round_.available])
    for size, left in ((1, round_), (_FEW, dataclasses.replace(round_, available=few))):
        _pick(select, left, size, where)
    _pick(select, round_, int(round_.available.sum(1).min()), where)


def _begin(pool: Pool, seeds: tuple[int, ...], copies: int = 1) -> Simulation:
    """A simulation of these starts on the half of the pool that trains policies, before its first pick."""
    simulation = Simulation(training_trainer(pool, FrozenConfig(hidden=8, steps=10)), _PROTOCOL)
    simulation.reset(training_starts(pool, _PROTOCOL, seeds), copies)
    return simulation


def _pick(select: Strategy, round_: Round, batch_size: int, where: str) -> Tensor:
    """The strategy's picks, which are valid."""
    free = round_.available.clone()
    try:
        picks = select(round_, batch_size)
    except Exception as error:
        raise StrategyError(f"The strategy fails on {where} at a batch of {batch_size}: {error!r}.") from error
    expected = (round_.episodes, batch_size)
    if not isinstance(picks, Tensor) or picks.dtype != torch.int64 or tuple(picks.shape) != expected:
        got = f"{picks.dtype} {list(picks.shape)}" if isinstance(picks, Tensor) else type(picks).__name__
        raise StrategyError(f"Picks must be torch.int64 {list(expected)}; got {got} on {where}.")
    for episode, (row, available) in enumerate(zip(picks.tolist(), free, strict=True)):
        place = f"episode {episode} of {where} at a batch of {batch_size}"
        outside = [p for p in row if not 0 <= p < len(available)]
        if outside:
            raise StrategyError(f"Pick {outside[0]} lies outside 0 .. {len(available) - 1} in {place}.")
        if len(set(row)) < batch_size:
            raise StrategyError(f"Position {first_repeated(row)} is picked twice in {place}.")
        labelled = [p for p in row if not available[p]]
        if labelled:
            raise StrategyError(f"Position {labelled[0]} is picked though it is labelled in {place}.")
    return picks


def _check_neighbours(select: Strategy, pool: Pool, where: str) -> None:
    """Check that starts get the same picks once more, beside others in another order, and alone."""
    together = _pick(select, _begin(pool, (5, 6, 7)).round, _BATCH, where)
    again = _pick(select, _begin(pool, (5, 6, 7)).round, _BATCH, where)
    _require_equal(again, together, f"Two rounds from the same starts got different picks on {where}")
    words = f"Picks depend on the episodes beside them on {where}"
    _require_equal(_pick(select, _begin(pool, (7, 5)).round, _BATCH, where), together[[2, 0]], words)
    _require_equal(_pick(select, _begin(pool, (6,)).round, _BATCH, where), together[[1]], words)


def _require_equal(picks: Tensor, expected: Tensor, violation: str, step: int = 1) -> None:
    different = (picks != expected).any(1).nonzero()
    if len(different):
        row = int(different[0])
        raise StrategyError(
            f"{violation} (episode {row * step}: {expected[row].tolist()}, then {picks[row].tolist()})."
        )


def _arrays(value: object, path: str, seen: set[int] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Copies of all the tensors and arrays that an object holds, those of its model included, by where they are."""
    seen = set() if seen is None else seen
    if isinstance(value, Tensor):
        yield path, value.detach().cpu().numpy().copy()
    elif isinstance(value, np.ndarray):
        yield path, value.copy()
    elif id(value) not in seen:
        seen.add(id(value))
        if isinstance(value, Mapping):
            parts = {f"{path}[{key!r}]": part for key, part in value.items()}
        elif isinstance(value, list | tuple):
            parts = {f"{path}[{i}]": part for i, part in enumerate(value)}
        elif isinstance(value, type) or callable(value):
            parts = {}
        else:
            parts = {f"{path}.{key}": part for key, part in getattr(value, "__dict__", {}).items()}
        for where, part in parts.items():
            yield from _arrays(part, where, seen)
