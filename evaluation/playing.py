"""Episodes of one strategy on some seeds, recorded round by round. Runs inside a worker; imports no ray."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch

from envs.errors import RLMBAError, StrategyError
from envs.models.frozen.model import TaskModelConfig
from envs.models.frozen.preparation import PreparedPool
from envs.pools.pool import Pool
from envs.round import Round, Stopwatch
from envs.simulation import ProtocolConfig, Simulation, Start
from policies.strategies import Strategy
from runtime.memory import with_peak_memory

T = TypeVar("T")

_TENSORS = ("x", "present", "labels", "density")
_SECONDS = ("seconds_inference", "seconds_scoring", "seconds_picking", "seconds_train")


@dataclass(frozen=True)
class Runs:
    """What one strategy did on S seeds; entry t of an axis of T + 1 is the model after t batches.

    Accuracies, weights and shares are fractions of 1. Seconds are those of the whole lockstep divided by its
    episodes, for the batch that led to this model, hence NaN in round 0. Selecting is inference (outputs and own
    models of the strategy), picking (building the batch) and scoring (all the rest); training includes the inference
    on validation and held-out rows.
    """

    seeds: np.ndarray  # int64 [S]
    starts: np.ndarray  # str [S] Start.digest
    models: np.ndarray  # str [S] hash of initial parameters and of the round-zero model's predictions
    accuracy: np.ndarray  # [S, T + 1]
    soft_accuracy: np.ndarray  # [S, T + 1]
    hard_accuracy: np.ndarray  # [S, T + 1]
    class_coverage: np.ndarray  # [S, T + 1] share of the classes among the labels
    modality_accuracy: np.ndarray  # [S, T + 1, M]
    weights: np.ndarray  # [S, T + 1, M] AMCB
    shapley: np.ndarray  # [S, T + 1, M] of each modality for the accuracy
    all_labels_accuracy: np.ndarray  # [S] of a model trained on all labels of the pool
    initial: np.ndarray  # int64 [S, n] rows of the pool labelled from the beginning
    picked: np.ndarray  # int64 [S, T, b] rows of the pool, in the order of picking
    seconds_inference: np.ndarray  # [S, T + 1]
    seconds_scoring: np.ndarray  # [S, T + 1]
    seconds_picking: np.ndarray  # [S, T + 1]
    seconds_train: np.ndarray  # [S, T + 1]
    peak_memory: np.ndarray  # [S] bytes that selecting for the whole lockstep needed for itself; NaN where unknown

    @staticmethod
    def join(parts: Sequence[Runs]) -> Runs:
        """Runs of one strategy on several chunks of seeds as one."""
        joined = (np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Runs))
        # One layout, wherever the parts come from: in another order a sum may end in another last digit.
        return Runs(*map(np.ascontiguousarray, joined))


@dataclass(frozen=True)
class Played:
    """All that was played on one data set, for its report."""

    pool: Pool
    protocol: ProtocolConfig
    runs: dict[str, Runs]  # by strategy and policy, in the order of the tables; paired
    facts: dict[str, Any]  # provenance, for the summary as it is


def to_arrays(data: PreparedPool) -> dict[str, Any]:
    """Prepared rows as numpy arrays, which processes can share without copies."""
    arrays = {f.name: getattr(data, f.name) for f in fields(data)}
    return arrays | {k: None if arrays[k] is None else arrays[k].cpu().numpy() for k in _TENSORS}


def from_arrays(arrays: dict[str, Any]) -> PreparedPool:
    """The inverse of `to_arrays`; shares the arrays' memory."""
    with warnings.catch_warnings():
        # Shared arrays are read-only and torch does not know that; a Simulation only reads them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensors = {k: None if arrays[k] is None else torch.from_numpy(arrays[k]) for k in _TENSORS}
    return PreparedPool(**(arrays | tensors))


def play(
    data: PreparedPool,
    starts: Sequence[Start],
    name: str,
    strategy: Strategy,
    protocol: ProtocolConfig,
    model: TaskModelConfig,
) -> Runs:
    """Play `protocol.rounds` rounds from these starts.

    Args:
        name: of the strategy, for messages.

    Raises:
        StrategyError: where the strategy does not return a valid batch.
    """
    simulation = Simulation(data, model, protocol)
    round_ = simulation.reset(starts)
    models = _model_hashes(simulation, data)
    count = len(starts)
    records = [_record(simulation, dict.fromkeys(_SECONDS, np.nan))]
    picked: list[np.ndarray] = []
    peak = np.nan
    for t in range(protocol.rounds):
        if t == 0:  # once: giving free memory back slows what comes after it
            (picks, seconds), peak = with_peak_memory(lambda r=round_: _select(name, strategy, r, protocol.batch_size))
        else:
            picks, seconds = _select(name, strategy, round_, protocol.batch_size)
        chosen = time.perf_counter()
        try:
            round_ = simulation.label(picks)
        except ValueError as error:
            raise StrategyError(f"Strategy '{name}' did not return a valid batch: {error}.") from error
        seconds["seconds_train"] = time.perf_counter() - chosen
        picked.append(picks.cpu().numpy())
        records.append(_record(simulation, {k: v / count for k, v in seconds.items()}))
    rows = [s.roles.pool for s in starts]
    return Runs(
        seeds=np.array([s.seed for s in starts], np.int64),
        starts=np.array([s.digest for s in starts]),
        models=np.array(models),
        **{k: np.stack([r[k] for r in records], 1) for k in records[0]},
        all_labels_accuracy=_to_array(simulation.reference_accuracy),
        initial=np.stack([r[s.initial] for r, s in zip(rows, starts, strict=True)]),
        picked=np.stack([np.stack([r[p[e]] for p in picked]) for e, r in enumerate(rows)]),
        peak_memory=np.full(count, peak),
    )


def rehearse(
    data: PreparedPool,
    start: Start,
    strategies: Mapping[str, Strategy],
    protocol: ProtocolConfig,
    model: TaskModelConfig,
) -> list[str]:
    """Let each strategy pick one batch, so that one that cannot work on a data set says so before the long work.

    Returns:
        what the strategies say that refuse.
    """
    round_ = Simulation(data, model, protocol).reset([start])
    refusals = []
    for name, strategy in strategies.items():
        try:
            _select(name, strategy, replace(round_, stopwatch=Stopwatch()), protocol.batch_size)
        except StrategyError as error:
            refusals.append(str(error))
    return refusals


def call_shared(function: Callable[..., T], arrays: dict[str, Any], *args: Any) -> T:
    """`play` or `rehearse` on what `to_arrays` gave, with one thread: the body of a worker's task."""
    torch.set_num_threads(1)
    return function(from_arrays(arrays), *args)


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
    """Seven decimals, which is all that single precision has; so equal counts stay equal in sums."""
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


def _model_hashes(simulation: Simulation, data: PreparedPool) -> list[str]:
    """Per start: hash of the initial parameters and of the round-zero model's classes on held-out rows."""
    columns = [torch.from_numpy(data.columns(s.roles.holdout)) for s in simulation.starts]
    x = torch.stack([data.x[:, :, c] for c in columns])
    present = None if data.present is None else torch.stack([data.present[:, c] for c in columns])
    predicted = simulation.round.model.predict(x, present).logits.argmax(1).cpu().numpy()
    initial = [getattr(simulation.initial, f.name).cpu().numpy() for f in fields(simulation.initial)]
    hashes = []
    for e in range(len(predicted)):
        h = hashlib.sha256(predicted[e].astype(np.int64).tobytes())
        for parameter in initial:
            h.update(np.ascontiguousarray(parameter[e]).tobytes())
        hashes.append(h.hexdigest()[:16])
    return hashes


def check_pairing(runs: dict[str, Runs]) -> None:
    """Refuse runs that do not form pairs.

    Raises:
        RLMBAError: where for one seed two strategies differ in seed, start or round-zero model.
    """
    first, *others = runs
    kinds = {"seeds": "seed", "starts": "start (roles and initial labels)", "models": "round-zero model"}
    for other in others:
        for field, what in kinds.items():
            a, b = getattr(runs[first], field), getattr(runs[other], field)
            if len(a) != len(b):
                raise RLMBAError(f"Unpaired: '{first}' has {len(a)} seeds and '{other}' has {len(b)}.")
            if (a != b).any():
                at = int((a != b).argmax())
                raise RLMBAError(
                    f"Unpaired: '{first}' and '{other}' do not share the {what} of seed "
                    f"{runs[first].seeds[at]} ({a[at]} and {b[at]}); their difference would mean nothing."
                )
