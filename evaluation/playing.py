"""Episodes of one strategy on some seeds, recorded round by round. Runs inside a worker; imports no ray."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from envs.errors import RLMBAError, StrategyError
from envs.lockstep import Lockstep, ProtocolConfig, Start
from envs.preparation import PreparedPool
from envs.round import Round
from envs.task_model import TaskModelConfig
from policies.strategies import Strategy

_TENSORS = ("x", "present", "labels", "density")


@dataclass(frozen=True)
class Runs:
    """What one strategy did on S seeds; entry t of an axis of T + 1 is the model after t batches.

    Accuracies, weights and shares are fractions of 1. Seconds are those of the whole lockstep divided by its
    episodes; selecting includes the inference that the strategy asks for, training that on validation and
    held-out rows.
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
    initial: np.ndarray  # int64 [S, n] rows of the pool labelled from the beginning
    picked: np.ndarray  # int64 [S, T, b] rows of the pool, in the order of picking
    seconds_select: np.ndarray  # [S, T + 1] for the batch that led to this model; NaN in round 0
    seconds_train: np.ndarray  # [S, T + 1] NaN in round 0

    @staticmethod
    def join(parts: Sequence[Runs]) -> Runs:
        """Runs of one strategy on several chunks of seeds as one."""
        return Runs(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Runs)))


def to_arrays(data: PreparedPool) -> dict[str, Any]:
    """Prepared rows as numpy arrays, which processes can share without copies."""
    arrays = {f.name: getattr(data, f.name) for f in fields(data)}
    return arrays | {k: None if arrays[k] is None else arrays[k].cpu().numpy() for k in _TENSORS}


def from_arrays(arrays: dict[str, Any]) -> PreparedPool:
    """The inverse of `to_arrays`; shares the arrays' memory."""
    with warnings.catch_warnings():
        # Shared arrays are read-only and torch does not know that; a Lockstep only reads them.
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
    lockstep = Lockstep(data, model, protocol)
    round_ = lockstep.reset(starts)
    models = _model_hashes(lockstep, data)
    count = len(starts)
    records = [_record(lockstep, np.nan, np.nan)]
    picked = []
    for _ in range(protocol.rounds):
        began = time.perf_counter()
        picks = strategy(round_, protocol.batch_size)
        chosen = time.perf_counter()
        _check_shape(name, picks, (count, protocol.batch_size))
        try:
            round_ = lockstep.label(picks)
        except ValueError as error:
            raise StrategyError(f"Strategy '{name}' did not return a valid batch: {error}.") from error
        trained = time.perf_counter()
        picked.append(picks.cpu().numpy())
        records.append(_record(lockstep, (chosen - began) / count, (trained - chosen) / count))
    rows = [s.roles.pool for s in starts]
    return Runs(
        seeds=np.array([s.seed for s in starts], np.int64),
        starts=np.array([s.digest for s in starts]),
        models=np.array(models),
        **{k: np.stack([r[k] for r in records], 1) for k in records[0]},
        initial=np.stack([r[s.initial] for r, s in zip(rows, starts, strict=True)]),
        picked=np.stack([np.stack([r[p[e]] for p in picked]) for e, r in enumerate(rows)]),
    )


def play_shared(arrays: dict[str, Any], *args: Any) -> Runs:
    """`play` on what `to_arrays` gave, with one thread: the body of a worker's task."""
    torch.set_num_threads(1)
    return play(from_arrays(arrays), *args)


def _check_shape(name: str, picks: Any, expected: tuple[int, int]) -> None:
    shape = tuple(getattr(picks, "shape", ()))
    if shape != expected:
        raise StrategyError(f"Strategy '{name}' returned picks of shape {list(shape)}, not {list(expected)}.")


def _record(lockstep: Lockstep, select: float, train: float) -> dict[str, np.ndarray]:
    """The current round in numbers, [S] or [S, M] each."""
    m, round_ = lockstep.measure(), lockstep.round
    values = {
        "accuracy": m.accuracy,
        "soft_accuracy": m.soft_accuracy,
        "hard_accuracy": m.hard_accuracy,
        "class_coverage": _coverage(round_),
        "modality_accuracy": m.modality_accuracy,
        "weights": round_.weights,
    }
    # Seven decimals are all that single precision has; so equal counts stay equal in sums.
    record = {k: v.double().cpu().numpy().round(7) for k, v in values.items()}
    episodes = len(record["accuracy"])
    return record | {"seconds_select": np.full(episodes, select), "seconds_train": np.full(episodes, train)}


def _coverage(round_: Round) -> torch.Tensor:
    """Share of the classes that have a label, [E]."""
    return torch.nn.functional.one_hot(round_.labels, round_.num_classes).amax(1).double().mean(1)


def _model_hashes(lockstep: Lockstep, data: PreparedPool) -> list[str]:
    """Per start: hash of the initial parameters and of the round-zero model's classes on held-out rows."""
    columns = [torch.from_numpy(data.columns(s.roles.holdout)) for s in lockstep.starts]
    x = torch.stack([data.x[:, :, c] for c in columns])
    present = None if data.present is None else torch.stack([data.present[:, c] for c in columns])
    predicted = lockstep.round.model.predict(x, present).logits.argmax(1).cpu().numpy()
    initial = [getattr(lockstep.initial, f.name).cpu().numpy() for f in fields(lockstep.initial)]
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
