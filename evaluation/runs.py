"""Records of what was played, apart from the player: reports read them, and learn whether they form pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from envs.errors import RLMBAError
from envs.pools.pool import Pool
from envs.simulation import ProtocolConfig


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
