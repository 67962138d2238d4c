"""What a person sees or hears of a sample: its text, and the files of its picture and audio."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from envs.errors import DataError, shorten
from envs.parquet import ParquetTable
from envs.pools import checks

KINDS = ("text", "picture", "audio")  # a text is held as it is, a picture or audio as the path of a file
FILES = ("picture", "audio")
SCHEMES = ("http", "https", "s3", "gs", "azure-blob", "az", "abfs", "abfss", "hdfs")  # of addresses
_HOME = b"home"  # key of a table's metadata
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


def is_address(value: str) -> bool:
    """Whether a value is not a path but an address, which a browser or a storage's own program resolves."""
    return _SCHEME.match(value) is not None


# What files begin with, from which byte on, and their media type.
_Marks = tuple[tuple[bytes, int, str], ...]
_PICTURES: _Marks = (
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"GIF87a", 0, "image/gif"),
    (b"GIF89a", 0, "image/gif"),
    (b"WEBP", 8, "image/webp"),
    (b"ftypavif", 4, "image/avif"),
    (b"ftyphei", 4, "image/heic"),
    (b"BM", 0, "image/bmp"),
    (b"II*\0", 0, "image/tiff"),
    (b"MM\0*", 0, "image/tiff"),
    (b"\0\0\1\0", 0, "image/x-icon"),
)
_SOUNDS: _Marks = (
    (b"WAVE", 8, "audio/wav"),
    (b"AVI ", 8, "video/x-msvideo"),
    (b"ID3", 0, "audio/mpeg"),
    *((bytes((0xFF, second)), 0, "audio/mpeg") for second in (0xFA, 0xFB, 0xF2, 0xF3, 0xE2, 0xE3)),
    *((bytes((0xFF, second)), 0, "audio/aac") for second in (0xF0, 0xF1, 0xF8, 0xF9)),
    (b"OggS", 0, "audio/ogg"),
    (b"fLaC", 0, "audio/flac"),
    (b"ftypM4A", 4, "audio/mp4"),
    (b"ftyp", 4, "video/mp4"),
    (b"AIFF", 8, "audio/aiff"),
    (b"AIFC", 8, "audio/aiff"),
    (b".snd", 0, "audio/basic"),
    (b"#!AMR", 0, "audio/amr"),
    (b"\x1aE\xdf\xa3", 0, "video/webm"),
)


def is_inside(value: str) -> bool:
    """Whether a path is relative and without ``..``, or an address elsewhere (https, s3 and the like).

    Others are refused: a pool from elsewhere must not show other files of the machine it is read on.
    """
    if "\0" in value:
        return False
    if scheme := _SCHEME.match(value):
        return scheme[1].lower() in SCHEMES and ".." not in re.split(r"[/\\]", value)
    path = PureWindowsPath(value)  # knows both kinds of slash; Path knows only its platform's
    return not path.anchor and ".." not in path.parts


def absolute_paths(kind: str, column: npt.ArrayLike, folder: Path) -> np.ndarray:
    """Return paths relative to `folder` as absolute paths, str [N]; "" and addresses stay.

    The backslashes of a table from Windows become slashes, unless there is a file of that name. Links are followed as
    far as they go, and may not lead out of `folder`; a file that is missing is noticed by whoever opens it.

    Raises:
        DataError: on a path that is not `is_inside`, or a link that leads out of `folder`.
    """
    relative, folder = checks.strings(kind, column), folder.absolute()
    for row, value in enumerate(relative.flat):
        if not is_inside(value):
            raise DataError(
                f"Row {row}: {kind} {shorten(str(value))} is no path inside the pool; give one relative to {folder}, "
                f"without '..', or an address ({', '.join(SCHEMES[:3])})."
            )
    absolute = [str(value) if not value or is_address(value) else _absolute(value, folder) for value in relative.flat]
    _refuse_links_out(kind, absolute, folder)
    made = np.empty(len(absolute), dtype=object)  # an array of str has room for the longest in every row
    made[:] = absolute
    return made.reshape(relative.shape)


def _absolute(value: str, folder: Path) -> str:
    path = folder / value
    return str(path if "\\" not in value or path.exists() else folder / value.replace("\\", "/"))


def missing(paths: Sequence[str] | np.ndarray) -> list[int]:
    """Rows whose picture or audio is not there; what an address names is not looked for."""
    there: dict[str, bool] = {"": True}
    for path in map(str, paths):
        if path not in there:
            there[path] = is_address(path) or os.path.isfile(path)
    return [row for row, path in enumerate(map(str, paths)) if not there[path]]


def _refuse_links_out(kind: str, absolute: Sequence[str], folder: Path) -> None:
    """Raise DataError where one of the paths below `folder` is or passes a link that leads out of it."""
    root = os.path.realpath(folder)
    links: dict[str, set[str] | None] = {}  # by folder, read once each: a pool may have a million pictures
    for row, path in enumerate(absolute):
        if is_address(path):
            continue
        place, name = os.path.split(path)
        if place not in links:
            links[place] = _links_in(place) if _is_below(os.path.realpath(place), root) else None
        found = links[place]
        if path and (found is None or name in found) and not _is_below(os.path.realpath(path), root):
            raise DataError(
                f"Row {row}: {kind} {path!r} leads out of {folder} by a link, to {os.path.realpath(path)!r}; put the "
                "file itself, or its folder, there."
            )


def _links_in(place: str) -> set[str]:
    try:
        with os.scandir(place) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except OSError:  # it is missing, or not ours to read
        return set()


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def picture_type(content: bytes) -> str | None:
    """The media type of a picture, told by its content; None for what is no picture, whatever its name."""
    if (found := _type_by_start(content, _PICTURES)) is not None:
        return found
    beginning = content[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    is_svg = beginning.startswith((b"<?xml", b"<svg", b"<!DOCTYPE svg", b"<!--")) and b"<svg" in beginning
    return "image/svg+xml" if is_svg else None


def sound_type(content: bytes) -> str | None:
    """The media type of a sound or film, told by its content; None for what is none, whatever its name."""
    return _type_by_start(content, _SOUNDS)


def _type_by_start(content: bytes, formats: _Marks) -> str | None:
    return next((kind for mark, at, kind in formats if content[at : at + len(mark)] == mark), None)


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
        if is_address(value):
            names[value] = value
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


def write_table(
    ids: np.ndarray, media: Mapping[str, Sequence[str] | np.ndarray], file: Path, home: Path | None = None
) -> None:
    """Write texts and paths by kind as Parquet, with a column id.

    Args:
        home: the folder that the file will be in; see `Moved`.
    """
    columns = {kind: pa.array(media[kind], pa.string()) for kind in KINDS if kind in media}
    table = pa.table({"id": ids} | columns)
    pq.write_table(table.replace_schema_metadata({_HOME: str(home)} if home else None), file)


class Moved:
    """Finds the pictures of a table that was moved together with them.

    Args:
        file: the table, with the folder that it was written for in its metadata; older ones lack it.
        home: the folder that it is in now.
    """

    def __init__(self, file: Path, home: Path):
        before = (pq.read_schema(file).metadata or {}).get(_HOME)
        self._before = before.decode() if before else None
        self._home = str(home)

    def __call__(self, path: str) -> str:
        """The path as it is, or where it is relative to the table if nothing is left in the old place."""
        if not path or self._before in (None, self._home) or is_address(path) or os.path.lexists(path):
            return path
        moved = os.path.normpath(os.path.join(self._home, os.path.relpath(path, self._before)))
        return moved if os.path.isfile(moved) else path


def read_table(file: Path) -> dict[str, list[str]]:
    """Return the texts and paths by kind that `write_table` wrote.

    Raises:
        whatever pyarrow raises; call it inside of `envs.reading.reading`.
    """
    table = ParquetTable(file)
    return table.read([kind for kind in KINDS if kind in table.schema.names])
