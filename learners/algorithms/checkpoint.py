"""Checkpoints of policy gradients: arrays as safetensors and the rest as JSON, so that reading one runs nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from envs.errors import PolicyError, shorten
from envs.reading import parse_json, reading, typed
from learners.algorithms.base import UNREADABLE

FORMAT = 1
ARRAYS_FILE, STATE_FILE = "learned.safetensors", "learned.json"


@dataclass(frozen=True)
class LearnedState:
    """What learning goes on from."""

    weights: dict[str, np.ndarray]  # of the learner's module, by parameter
    averaged: dict[str, np.ndarray]  # exported weights, by parameter of a `Selector`
    moments: dict[int, dict[str, np.ndarray]]  # of the optimiser, by number of the parameter
    steps: int  # changes of the weights, as RLlib counts them
    updates: int  # iterations that the averaged weights know
    advantages: dict[str, Any]  # as `Advantages.get_state` gives it
    labels: dict[int, int]  # seen in pools that were drawn from families, by number of the source


def write_state(state: LearnedState, folder: Path) -> None:
    """Write a checkpoint into a folder.

    Raises:
        OSError, SafetensorError: where it cannot be written.
    """
    arrays = {f"weights/{name}": value for name, value in state.weights.items()}
    arrays |= {f"averaged/{name}": value for name, value in state.averaged.items()}
    for number, moments in state.moments.items():
        arrays |= {f"moments/{number}/{name}": value for name, value in moments.items()}
    save_file({name: np.array(value, order="C") for name, value in arrays.items()}, folder / ARRAYS_FILE)
    rest = {
        "format": FORMAT,
        "steps": int(state.steps),
        "updates": int(state.updates),
        "advantages": state.advantages,
        "labels": [[int(source), int(count)] for source, count in state.labels.items()],
    }
    (folder / STATE_FILE).write_text(json.dumps(rest, indent=1) + "\n", encoding="utf-8")


def is_pickled(folder: Path) -> bool:
    """Whether a checkpoint is one of RLlib's, as earlier versions wrote them."""
    return not (folder / STATE_FILE).exists() and any(folder.rglob("*.pkl"))


def read_state(folder: Path) -> LearnedState:
    """Read a checkpoint.

    Raises:
        PolicyError: where it is damaged or of another format.
    """
    with reading(folder, UNREADABLE, PolicyError):
        rest = parse_json((folder / STATE_FILE).read_text(encoding="utf-8"))
        if rest["format"] != FORMAT:
            raise ValueError(f"its format is {shorten(rest['format'])}, and this version reads {FORMAT}")
        by_kind: dict[str, dict[str, np.ndarray]] = {"weights": {}, "averaged": {}, "moments": {}}
        for path, value in load_file(folder / ARRAYS_FILE).items():
            if value.dtype.kind != "f" or not np.isfinite(value).all():
                raise ValueError(f"{shorten(path)} holds a value that is no finite number")
            kind, _, name = path.partition("/")
            by_kind[kind][name] = value
        moments: dict[int, dict[str, np.ndarray]] = {}
        for path, value in by_kind["moments"].items():
            number, _, name = path.partition("/")
            moments.setdefault(int(number), {})[name] = value
        return LearnedState(
            weights=by_kind["weights"],
            averaged=by_kind["averaged"],
            moments=moments,
            steps=typed(int, rest["steps"]),
            updates=typed(int, rest["updates"]),
            advantages=typed(dict[str, Any], rest["advantages"]),
            labels=dict(typed(list[tuple[int, int]], rest["labels"])),
        )
