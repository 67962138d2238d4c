"""Finished chunks of a comparison, kept under a hash of everything that decides them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.candidates import FEATURES
from envs.models.base import TaskModelConfig
from envs.pools.partition import Start
from envs.simulation import ProtocolConfig
from evaluation.runs import Runs
from policies.batch_features import BATCH_FEATURES
from policies.strategies import Strategy
from runtime.array_store import ArrayStore
from runtime.code_hash import code_hash, describe_settings

PLAYER = "evaluation.playing"  # the module that plays and records


class Results:
    """Runs of one strategy on one chunk of starts in `folder`/<key>.npz.

    Args:
        folder: made by the first `put`.
        note: called with a line of text where a file is there and cannot be used.
    """

    def __init__(self, folder: Path, note: Callable[[str], object]):
        self.store, self.note = ArrayStore(folder, note), note

    def get(self, key: str, starts: Sequence[Start]) -> Runs | None:
        """What was played from these starts; None where nothing was, or where the file holds something else."""
        arrays = self.store.get(key)
        if arrays is None:
            return None
        digests = [start.digest for start in starts]
        if set(arrays) == {f.name for f in fields(Runs)} and arrays["starts"].tolist() == digests:
            return Runs(**arrays)
        self.note(f"{self.store.path(key)} does not hold what its name says and is computed again.")
        return None

    def put(self, key: str, runs: Runs) -> None:
        """Keep runs; ConfigError where the folder cannot be written."""
        self.store.put(key, {f.name: getattr(runs, f.name) for f in fields(Runs)})


def describe_strategy(name: str, strategy: Strategy) -> dict[str, Any]:
    """What tells a registered strategy apart: name, code and, where it is no plain function, its state."""
    state: list[Any] = []
    while isinstance(strategy, functools.partial):
        state.append((strategy.args, sorted(strategy.keywords.items())))
        strategy = strategy.func
    state += [cell.cell_contents for cell in getattr(strategy, "__closure__", None) or ()]
    state += sorted(vars(strategy).items())
    qualified = getattr(strategy, "__qualname__", type(strategy).__qualname__)
    code = code_hash(PLAYER, strategy.__module__)
    return {"name": name, "function": f"{strategy.__module__}.{qualified}", "state": repr(state), "code": code}


def describe_policy(weights_sha256: str, selector: dict[str, Any], candidates: dict[str, Any]) -> dict[str, Any]:
    """What tells a policy apart, wherever its file lies and whatever it is called."""
    features = [FEATURES.find(name).value for name in selector.get("features", ())]
    features += [BATCH_FEATURES.find(name) for name in selector.get("batch_features", ())]
    code = code_hash(PLAYER, "policies.strategies.learned", *sorted({feature.__module__ for feature in features}))
    return {"weights": weights_sha256, "selector": selector, "candidates": candidates, "code": code}


def result_key(
    fingerprint: str,
    starts: Sequence[Start],
    protocol: ProtocolConfig,
    model: TaskModelConfig,
    chooser: dict[str, Any],
) -> str:
    """SHA-256 (hex) of all that decides a chunk.

    Args:
        fingerprint: of the data set.
        chooser: from `describe_strategy` or `describe_policy`.
    """
    decisive = {
        "dataset": fingerprint,
        "starts": [start.digest for start in starts],
        "protocol": asdict(protocol),
        "model": describe_settings(model),
        "chooser": chooser,
        "versions": {"numpy": np.__version__, "torch": torch.__version__},
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
