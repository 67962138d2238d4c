"""What a person sees or hears of a sample: its text, and the files of its picture and audio."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from envs.errors import DataError, shorten
from envs.pools import checks

KINDS = ("text", "picture", "audio")  # a text is held as it is, a picture or audio as the path of a file
FILES = ("picture", "audio")


def is_inside(value: str) -> bool:
    """Whether a path is relative and without ``..``.

    Others are refused: a pool from elsewhere must not show other files of the machine it is read on.
    """
    path = PureWindowsPath(value)  # knows both kinds of slash; Path knows only its platform's
    return not path.anchor and ".." not in path.parts and "\0" not in value


def absolute_paths(kind: str, column: npt.ArrayLike, folder: Path) -> np.ndarray:
    """Return paths relative to `folder` as absolute paths, str [N]; "" stays.

    The paths are only read, not followed; a file that is missing is noticed by whoever opens it.

    Raises:
        DataError: on a path that is not `is_inside`.
    """
    relative, folder = checks.strings(kind, column), folder.absolute()
    for row, value in enumerate(relative.flat):
        if not is_inside(value):
            raise DataError(
                f"Row {row}: {kind} {shorten(str(value))} is no path inside the pool; give one relative to {folder}, "
                "without '..'."
            )
    absolute = [str(folder / value) if value else "" for value in relative.flat]
    made = np.empty(len(absolute), dtype=object)  # an array of str has room for the longest in every row
    made[:] = absolute
    return made.reshape(relative.shape)


def copy_pictures(paths: np.ndarray, ids: np.ndarray, folder: Path) -> list[str]:
    """Copy pictures, str [N], to ``pictures/`` of `folder` and return their paths relative to it, str [N].

    They are named after their content: a picture that many samples share is stored once, and
    a pool keeps valid paths when the folder that it was loaded from is saved anew.

    Raises:
        DataError: if a picture is not there.
        OSError: if one cannot be read or written.
    """
    (folder / "pictures").mkdir()
    names: dict[str, str] = {"": ""}
    values = paths.tolist()
    for row, value in enumerate(values):
        if value in names:
            continue
        file = Path(value)
        if not file.is_file():
            raise DataError(
                f"{checks.at(row, ids)}: its picture '{value}' is not a file; correct the path, or give "
                'an empty one ("") for none.'
            )
        content = file.read_bytes()
        names[value] = f"pictures/{hashlib.sha256(content).hexdigest()[:16]}{file.suffix.lower()}"
        (folder / names[value]).write_bytes(content)
    return [names[value] for value in values]


def write_table(ids: np.ndarray, media: Mapping[str, Sequence[str] | np.ndarray], file: Path) -> None:
    """Write texts and paths by kind as Parquet, with a column id."""
    columns = {kind: pa.array(media[kind], pa.string()) for kind in KINDS if kind in media}
    pq.write_table(pa.table({"id": ids} | columns), file)


def read_table(file: Path) -> dict[str, list[str]]:
    """Return the texts and paths by kind that `write_table` wrote.

    Raises:
        whatever pyarrow raises; call it inside of `envs.reading.reading`.
    """
    table = pq.read_table(file)
    return {kind: table[kind].to_pylist() for kind in KINDS if kind in table.column_names}
