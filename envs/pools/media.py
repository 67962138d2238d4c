"""What a person sees or hears of a sample: its text, and the files of its picture and audio."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from envs.errors import DataError
from envs.pools import checks

KINDS = ("text", "picture", "audio")  # a text is held as it is, a picture or audio as the path of a file
FILES = ("picture", "audio")

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
    """Whether a path is relative and without ``..``.

    Others are refused: a pool from elsewhere must not show other files of the machine it is read on.
    """
    path = PureWindowsPath(value)  # knows both kinds of slash; Path knows only its platform's
    return not path.anchor and ".." not in path.parts and "\0" not in value


def absolute_paths(kind: str, column: npt.ArrayLike, folder: Path) -> np.ndarray:
    """Return paths relative to `folder` as absolute paths, str [N]; "" stays.

    Links are followed as far as they go, and may not lead out of `folder`; a file that is missing is noticed by whoever
    opens it.

    Raises:
        DataError: on a path that is not `is_inside`, or a link that leads out of `folder`.
    """
    relative, folder = checks.strings(kind, column), folder.absolute()
    for row, value in enumerate(relative.flat):
        if not is_inside(value):
            raise DataError(
                f"Row {row}: {kind} {str(value)!r} is no path inside the pool; give one relative to {folder}, "
                "without '..'."
            )
    absolute = [str(folder / value) if value else "" for value in relative.flat]
    _refuse_links_out(kind, absolute, folder)
    return np.array(absolute, dtype=str).reshape(relative.shape)


def _refuse_links_out(kind: str, absolute: Sequence[str], folder: Path) -> None:
    """Raise DataError where one of the paths below `folder` is or passes a link that leads out of it."""
    root = os.path.realpath(folder)
    links: dict[str, set[str] | None] = {}  # by folder, read once each: a pool may have a million pictures
    for row, path in enumerate(absolute):
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


def copy_pictures(paths: np.ndarray, ids: np.ndarray, folder: Path) -> np.ndarray:
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
    return np.array([names[value] for value in values])


def write_table(ids: np.ndarray, media: Mapping[str, Sequence[str] | np.ndarray], file: Path) -> None:
    """Write texts and paths by kind as Parquet, with a column id."""
    columns = {kind: pa.array(media[kind], pa.string()) for kind in KINDS if kind in media}
    pq.write_table(pa.table({"id": ids} | columns), file)


def read_table(file: Path) -> dict[str, list[str]]:
    """Return the texts and paths by kind that `write_table` wrote.

    Raises:
        one of `envs.files.BROKEN_FILE`.
    """
    table = pq.read_table(file)
    return {kind: table[kind].to_pylist() for kind in KINDS if kind in table.column_names}
