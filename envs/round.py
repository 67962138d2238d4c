"""A round: everything that a chooser may look at once the task models are trained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from envs.models.accuracy import Validation
from envs.models.base import Outputs, TaskModel
from envs.models.contribution import weights_among_present
from envs.models.evidence import fuse_evidence
from envs.randomness import round_stream


class Stopwatch:
    """Where a chooser's time goes, in seconds by kind: "inference" and "picking"; the rest of it is scoring."""

    def __init__(self) -> None:
        self.seconds = {"inference": 0.0, "picking": 0.0}
        self._running = False

    @contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Add what the body takes to `kind`; a measurement within another one does not count again."""
        if self._running:
            yield
            return
        self._running, began = True, time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] += time.perf_counter() - began
            self._running = False


@dataclass(frozen=True)
class Round:
    """State of E episodes before they pick their next batches. Positions count the pool rows, 0 .. P - 1.

    The pool holds no test row, and `labels` only what has been bought.
    """

    index: int  # t, from 0
    rounds: int  # T
    seeds: tuple[int, ...]  # E start seeds; copies of a start share theirs
    model: TaskModel
    density: Tensor  # [S, P]
    available: Tensor  # bool [E, P]
    labelled: Tensor  # int64 [E, n] positions
    labels: Tensor  # int64 [E, n] labels of the labelled rows
    weights: Tensor  # [E, M] AMCB
    validation: Validation
    stopwatch: Stopwatch = field(default_factory=Stopwatch, compare=False)

    @property
    def episodes(self) -> int:
        return len(self.seeds)

    @property
    def num_classes(self) -> int:
        return self.model.head.shape[1]

    @property
    def progress(self) -> float:
        """t / (T - 1), from 0 to 1 over the episode."""
        return self.index / max(self.rounds - 1, 1)

    @cached_property
    def outputs(self) -> Outputs:
        """Outputs for the whole pool."""
        with self.stopwatch.measure("inference"):
            return self.model.outputs()

    def outputs_at(self, positions: Tensor) -> Outputs:
        """Outputs for positions [E, K] only."""
        with self.stopwatch.measure("inference"):
            return self.model.outputs(positions)

    def refitted(self, heads: str = "evidential", dropout: float = 0.0, first: int | None = None) -> Round:
        """The same round with task models trained otherwise (see `TaskModel.refitted`), on the first or all labels.

        Validation and AMCB weights stay those of the round's own models.
        """
        with self.stopwatch.measure("inference"):
            return replace(self, model=self.model.refitted(heads, dropout, first))

    def with_equal_weights(self) -> Round:
        """The same round as if there were no AMCB: every modality counts alike, and none is ahead of the others."""
        delta = torch.zeros_like(self.validation.delta)
        weights = torch.full_like(self.weights, 1.0 / self.weights.shape[1])
        return replace(self, weights=weights, validation=replace(self.validation, delta=delta))

    def fused(self, outputs: Outputs) -> Tensor:
        """EFDA's alpha_f for some outputs, fused with the AMCB weights, [E, C, R]."""
        return fuse_evidence(outputs.evidence, self.weights_for(outputs))

    def weights_for(self, outputs: Outputs) -> Tensor:
        """AMCB weights, [E, M]; renormalised per row, [E, M, R], where modalities are missing."""
        if outputs.present is None:
            return self.weights
        return weights_among_present(self.weights, outputs.present)

    def uniforms(self, purpose: str, count: int) -> Tensor:
        """Numbers in [0, 1), [E, count], decided by start seed, round and purpose alone."""
        drawn: dict[int, np.ndarray] = {}
        for seed in self.seeds:
            if seed not in drawn:
                drawn[seed] = round_stream(seed, self.index, purpose).random(count)
        return torch.from_numpy(np.stack([drawn[s] for s in self.seeds])).to(self.available.device)
