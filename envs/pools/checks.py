"""What must hold for the arrays of a pool. Each check says where, which value, and what to do."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from envs.errors import DataError, shorten
from envs.names import is_storable

UNKNOWN = -1  # the label of a sample that nobody has labelled yet
TRAIN, VALIDATION, TEST = 0, 1, 2  # values of a pool's split

LONGEST_NAME = 500  # characters of an id, a group or a class
LONGEST = {"text": 2**26, "picture": 4096, "audio": 4096}  # and of what people look at

_BLOCK_BYTES = 16 * 2**20
_MODALITY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def at(row: int, ids: np.ndarray) -> str:
    """Name a row in an error: its index and its id."""
    return f"row {row} (id {shorten(str(ids[row]))})"


def blocks(x: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, rows) of [N, D] such that a large memory map is never read at once."""
    rows = max(1, _BLOCK_BYTES // (x.shape[1] * x.itemsize))
    for start in range(0, len(x), rows):
        yield start, np.asarray(x[start : start + rows])


def check_modality_name(modality: str) -> None:
    """Refuse names that cannot be file names (they become ``features/<modality>.npy``)."""
    if not _MODALITY_NAME.fullmatch(modality):
        raise DataError(f"Modality name {shorten(modality)} cannot be a file name; use letters, digits, _, . and -.")


def check_matrix(modality: str, x: np.ndarray) -> None:
    """Refuse features that are not numbers [N, D]."""
    check_modality_name(modality)
    if x.ndim != 2 or x.shape[1] == 0:
        raise DataError(f"Modality '{modality}' has shape {list(x.shape)}; it must be [N, D].")
    if x.dtype.kind not in "fiu":
        raise DataError(f"Modality '{modality}' holds {x.dtype}; convert it to numbers.")


def check_lengths(features: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]) -> None:
    """Refuse columns other than `present` that are not [N], and arrays without one row per sample."""
    first, n = next((m, len(x)) for m, x in features.items())
    for field, values in columns.items():
        if field != "present" and values.ndim != 1:
            raise DataError(f"{field} has shape {list(values.shape)}; it must be [{n}].")
    lengths = {f"modality '{m}'": len(x) for m, x in features.items()}
    lengths |= {field: len(np.atleast_1d(values)) for field, values in columns.items()}
    for field, length in lengths.items():
        if length != n:
            raise DataError(
                f"Rows do not match: {field} has {length} but modality '{first}' has {n}; "
                "every array needs one row per sample, in the same order."
            )


def check_finite(modality: str, x: np.ndarray, present: np.ndarray, ids: np.ndarray) -> None:
    """Refuse NaN, infinity and numbers beyond float32 in rows whose modality is `present`."""
    if x.dtype.kind != "f":
        return
    for start, block in blocks(x):
        with np.errstate(over="ignore"):  # models compute in float32, where 1e300 is infinite
            bad = ~np.isfinite(block.astype(np.float32, copy=False))
        bad &= present[start : start + len(block), None]
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise DataError(
                f"Modality '{modality}', {at(start + row, ids)}, column {column}: value "
                f"{block[row, column]} is not a finite float32; repair it, leave the sample out, "
                f"or mark the modality as absent there (present_{modality})."
            )


def strings(field: str, column: npt.ArrayLike) -> np.ndarray:
    """Return `column` as an array of str; None, NaN and what is too long are refused.

    Texts and paths become an array of objects: an array of str has room for the longest in every row.
    """
    array = column if isinstance(column, np.ndarray) else np.asarray(column, dtype=object)
    short = array.dtype.kind == "U" and array.dtype.itemsize <= 4 * LONGEST_NAME
    if field not in LONGEST and short and not _has_surrogates(array):
        return array
    longest = LONGEST.get(field, LONGEST_NAME)
    made = np.empty(array.size, dtype=object)
    for row, value in enumerate(array.reshape(-1).tolist()):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            none = ' ("" for none)' if field in LONGEST else ""
            raise DataError(f"Row {row} has no {field}; give one for every sample{none}.")
        text = value.decode() if isinstance(value, bytes) else str(value)
        if len(text) > longest:
            raise DataError(
                f"Row {row}: {field} {shorten(text)} has {len(text):,} characters; at most {longest:,} are possible."
            )
        if not is_storable(text):
            raise DataError(
                f"Row {row}: {field} {shorten(text)} holds half a character (a lone surrogate); write it anew."
            )
        made[row] = text
    return (made if field in LONGEST else made.astype(str)).reshape(array.shape)


def _has_surrogates(array: np.ndarray) -> bool:
    """Whether an array of str holds half a character, looked at as a whole: there may be millions of names."""
    if not array.size or not array.dtype.itemsize:
        return False
    codes = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).view(np.uint32)
    return bool(((codes >= 0xD800) & (codes < 0xE000)).any())


def check_ids(ids: np.ndarray) -> None:
    """Refuse empty and repeated ids."""
    unique, first, count = np.unique(ids, return_index=True, return_counts=True)
    if (count > 1).any():
        value = unique[np.argmax(count > 1)]
        rows = np.flatnonzero(ids == value)
        raise DataError(f"Id {shorten(str(value))} occurs in rows {rows[0]} and {rows[1]}; make ids unique.")
    if unique[0] == "":
        raise DataError(f"Row {first[0]} has an empty id; give every sample an id.")


def check_groups(group: np.ndarray, ids: np.ndarray) -> None:
    """Refuse empty groups: they would tie unrelated samples together."""
    if (group == "").any():
        row = int(np.argmax(group == ""))
        raise DataError(f"{at(row, ids)} has an empty group; name one for every sample.")


def check_presence(present: np.ndarray, modalities: int, ids: np.ndarray) -> None:
    """Refuse presence that is not bool [N, M] and samples without any modality."""
    if present.shape != (len(ids), modalities) or present.dtype != np.bool_:
        raise DataError(
            f"present must be bool {[len(ids), modalities]} (samples, modalities) but is "
            f"{present.dtype} {list(present.shape)}."
        )
    if not present.any(axis=1).all():
        row = int(np.argmin(present.any(axis=1)))
        raise DataError(f"{at(row, ids)} has no modality at all; leave the sample out.")


def checked_labels(labels: np.ndarray, names: tuple[str, ...], ids: np.ndarray) -> np.ndarray:
    """Return the labels as int64 [N]; labels outside the classes are refused."""
    if labels.dtype.kind not in "iu":
        raise DataError(f"Labels must be whole numbers [N] but are {labels.dtype}.")
    outside = (labels < UNKNOWN) | (labels >= len(names))
    if outside.any():
        row = int(np.argmax(outside))
        valid = f"outside 0..{len(names) - 1}" if names else "which is no class"
        raise DataError(
            f"{at(row, ids)} has label {labels[row]}, {valid}; use -1 for an "
            "unknown label, or name the class in class_names."
        )
    return labels.astype(np.int64)


def checked_split(split: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return the split as int8 [N]; values other than 0, 1 and 2 are refused, and a mask, which may mean anything."""
    if split.dtype.kind not in "iuf":
        raise DataError(
            f"split holds {split.dtype}; it must be 0 (train), 1 (validation) or 2 (test). For a mask of test rows "
            "give 2 * is_test."
        )
    wrong = ~np.isin(split, (TRAIN, VALIDATION, TEST))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{at(row, ids)} has split {split[row]!s}; use 0 (train), 1 (validation) or 2 (test).")
    return split.astype(np.int8)
