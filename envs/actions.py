"""Actions as whatever learns may give them: read, refused in words, or made a batch of distinct valid candidates."""

from __future__ import annotations

from typing import Any

import numpy as np


def read_slots(actions: Any, shape: tuple[int, ...], candidates: int) -> np.ndarray:
    """Actions as int64 of that shape; numbers below 0 and above the last candidate come back as -1 and K.

    Args:
        actions: an array or what becomes one. Whole numbers may have any type.
        candidates: K.

    Raises:
        ValueError: where they are no whole numbers of that shape.
    """
    try:
        given = np.asarray(actions)
    except (ValueError, TypeError, RuntimeError):  # rows of different lengths; a tensor that is elsewhere
        raise ValueError(f"the action is no array of whole numbers, of shape {list(shape)}") from None
    if given.dtype.kind not in "iuf":
        raise ValueError(f"the action is {_shown(actions)}; expected whole numbers, of shape {list(shape)}")
    if given.shape != shape:
        raise ValueError(f"the action has shape {list(given.shape)}; expected {list(shape)}")
    if given.dtype.kind == "f":
        wrong = given[~np.isfinite(given) | (given != np.floor(given))]
        if wrong.size:
            raise ValueError(f"the action holds {wrong[0]}; expected whole numbers in 0 .. {candidates - 1}")
    wide = given.astype({"i": np.int64, "u": np.uint64, "f": np.float64}[given.dtype.kind])
    return np.clip(wide, 0 if given.dtype.kind == "u" else -1, candidates).astype(np.int64)


def distinct_slots(slots: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actions [E, b] with repeated and invalid slots replaced by the first free valid ones, and their numbers [E].

    Args:
        slots: as from `read_slots`.
        valid: bool [E, K], at least b of them in each row.
    """
    bad = _repeated(slots) | ~_valid_at(slots, valid)
    row, column = np.nonzero(~bad)
    free = valid.copy()
    free[row, slots[row, column]] = False
    in_order = np.argsort(~free, axis=1, kind="stable")  # the free ones first
    row, column = np.nonzero(bad)
    repaired = slots.copy()
    repaired[row, column] = in_order[row, np.cumsum(bad, 1)[row, column] - 1]
    return repaired, bad.sum(1)


def check_slots(slots: np.ndarray, valid: np.ndarray) -> None:
    """Raise ValueError where actions [E, b] name a candidate twice or one that is not valid [E, K]."""
    last = valid.shape[1] - 1
    if ((slots < 0) | (slots > last)).any():
        raise ValueError(f"an action names a slot outside 0 .. {last}")
    if not _valid_at(slots, valid).all():
        raise ValueError("an action names a candidate slot whose 'valid' is 0")
    if _repeated(slots).any():
        raise ValueError("an action names a candidate slot twice")


def action_masks(valid: np.ndarray, batch_size: int) -> np.ndarray:
    """Which slots each entry of an action may name, one entry after the other: [E, K] as [E, b * K]."""
    return np.tile(valid, (1, batch_size))


def _repeated(slots: np.ndarray) -> np.ndarray:
    """Where an earlier entry of the action names the same slot."""
    order = np.argsort(slots, axis=1, kind="stable")
    ordered = np.take_along_axis(slots, order, 1)
    repeated = np.zeros(slots.shape, bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], 1)
    return repeated


def _valid_at(slots: np.ndarray, valid: np.ndarray) -> np.ndarray:
    inside = (slots >= 0) & (slots < valid.shape[1])
    return inside & np.take_along_axis(valid, np.where(inside, slots, 0), 1)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
