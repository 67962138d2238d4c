"""The one way to read files that others wrote: whatever a library raises becomes our error, and sizes are bounded.

with reading(file):
    content = library.load(file)  # ValueError, MemoryError, ...: DataError "x.npz cannot be read: ..."
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import re
import struct
import tokenize
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from envs.errors import DataError, RLMBAError, shorten

T = TypeVar("T")

LARGEST_RATIO = 100  # an archive may unpack to so many times its own size,
SMALL = 2**30  # or to so many bytes, whichever is more
_LONGEST_HEADER = 2**14  # numpy refuses those of more than 10,000 bytes
_LONGEST_SETTINGS = 500_000  # characters,
_DEEPEST_SETTINGS = 50  # brackets within each other
_MOST_SETTINGS = 100_000  # and values
_REASON = 200  # characters of a library's message
_ZIP_END = struct.Struct("<10sH10s")  # the record that ends a zip: its second count of entries, and what lies around it
_ZIP_END_MARK = b"PK\x05\x06"
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


@contextmanager
def reading(
    file: str | os.PathLike[str], words: str = "cannot be read: {reason}", error: type[RLMBAError] = DataError
) -> Iterator[None]:
    """Turn whatever is raised inside into `error`, naming the file; our own errors pass.

    What was raised stays as the cause, so that a fault of ours is seen in tests and under RL_MBA_DEBUG.

    Args:
        file: what is being read.
        words: what follows the file's name; `{reason}` stands for the reason.
    """
    try:
        yield
    except (RLMBAError, NameError):  # no content of a file makes a name undefined
        raise
    except FileNotFoundError as cause:
        itself = cause.filename is not None and os.fspath(file) == os.fspath(cause.filename)
        raise error(f"{file}: no such file." if itself else _said(file, words, cause)) from cause
    except Exception as cause:
        raise error(_said(file, words, cause)) from cause


def reason(error: BaseException) -> str:
    """What an error says, in one short line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it says that it is larger than the memory"
    if isinstance(error, tokenize.TokenError | SyntaxError):
        return "its header is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not {error.encoding}"
    text = " ".join(str(error)[: 10 * _REASON].split())
    if isinstance(error, KeyError) and " " not in text:
        return f"{text[:_REASON]} is missing"
    return (text if len(text) <= _REASON else text[: _REASON - 3] + "...") or type(error).__name__


def read_json(
    file: Path, words: str = "cannot be read: {reason}", error: type[RLMBAError] = DataError, kind: type = dict
) -> Any:
    """The content of a JSON file, UTF-8, of this kind.

    Keys that occur twice and halves of surrogate pairs, which no file can hold, are refused.
    """
    with reading(file, words, error):
        return parse_json(file.read_text("utf-8-sig"), kind)


def parse_json(text: str | bytes, kind: type = dict) -> Any:
    """The value of a JSON text, of this kind.

    Raises:
        ValueError, RecursionError: where it is none; see `read_json`.
    """
    value = json.loads(text, object_pairs_hook=_unique_keys)
    if _HALF_PAIR.search(text if isinstance(text, str) else text.decode("latin-1")):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a character (a lone surrogate)") from None
    if not isinstance(value, kind):
        raise ValueError(f"it holds {shorten(value)}, and not {'a list' if kind is list else 'names and values'}")
    return value


def typed(kind: type[T], content: Any) -> T:
    """A value of JSON as the dataclass or type `kind`, whose annotations hold strictly: no "5" for 5, no 5 for 5.5.

    Raises:
        ValueError: naming the field and its value.
    """
    from pydantic import ValidationError  # takes a tenth of a second, which most commands need not wait

    if is_dataclass(kind) and isinstance(content, dict):
        unknown = set(content) - {field.name for field in fields(kind)}
        if unknown:
            raise ValueError(f"this version knows no {', '.join(map(shorten, sorted(unknown)))}")
    try:
        return _adapter(cast(Any, kind)).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where or 'it'} is {shorten(first['input'])}: {first['msg'].lower()}") from None


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def read_array(file: Path) -> np.ndarray:
    """The array of a ``.npy``, memory-mapped.

    Raises:
        ValueError, or whatever numpy raises; call it inside of `reading`.
    """
    with open(file, "rb") as stream:  # numpy takes anything else for a pickle, and advises to load it
        if stream.read(6) != b"\x93NUMPY":
            raise DataError(f"{file} is no .npy file; write it by numpy.save.")
        stream.seek(0)
        promised, start = _promised_bytes(stream), stream.tell()
    _check_bytes(promised, os.path.getsize(file) - start)
    return np.load(file, mmap_mode="r", allow_pickle=False)


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz``, each read to its last byte, which is where its checksum is compared.

    Raises:
        ValueError, or whatever numpy and zipfile raise; call it inside of `reading`.
    """
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(file) as archive:
        if len(archive.namelist()) != _promised_entries(file):
            raise ValueError("the list of its arrays is damaged")
        unpacked, packed = sum(entry.file_size for entry in archive.infolist()), file.stat().st_size
        check_unpacked(unpacked, packed, "its arrays")
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"it holds the array {shorten(name)} twice")
            if name == entry.filename:
                archive.open(entry).close()  # whatever it is: this compares the two places of its name
                continue
            with archive.open(entry) as stream:
                head = io.BytesIO(stream.read(_LONGEST_HEADER))
            _check_bytes(_promised_bytes(head), entry.file_size - head.tell(), f"the array {shorten(name)}")
            with archive.open(entry) as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
                stream.read(1)
    return arrays


def check_unpacked(unpacked: int, packed: int, what: str) -> None:
    """Raise ValueError where the content of a file of so many bytes would take much more room than the file."""
    if unpacked > max(SMALL, LARGEST_RATIO * packed):
        raise ValueError(
            f"{what} unpack to {unpacked / 2**30:.1f} GB or more, {unpacked / packed:.0f} times its own size; save it "
            "without compression and dictionaries (numpy.savez, use_dictionary=False) if they are what they should be"
        )


def bounded(parse: Callable[[str], Any], text: str) -> Any:
    """What `parse` makes of a text of settings, unless it is long, deep, or says by aliases more than it holds.

    Raises:
        ValueError, or whatever `parse` raises; call it inside of `reading`.
    """
    if len(text) > _LONGEST_SETTINGS:
        raise ValueError(f"it has {len(text):,} characters, and settings at most {_LONGEST_SETTINGS:,}")
    depth = itertools.accumulate(1 if bracket in "[{" else -1 for bracket in re.findall(r"[\[\]{}]", text))
    if max(depth, default=0) > _DEEPEST_SETTINGS:
        raise ValueError(f"it is nested more than {_DEEPEST_SETTINGS} deep")
    value = parse(text)
    count, todo = 0, [value]
    while todo:
        part = todo.pop()
        count += 1
        if count > _MOST_SETTINGS:
            raise ValueError(f"its aliases stand for more than {_MOST_SETTINGS:,} values")
        if isinstance(part, dict):
            todo += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set):
            todo += part
    return value


def first_repeated(values: Sequence[T]) -> T | None:
    """The first value that occurs twice; None where all differ."""
    seen: set[T] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def _said(file: str | os.PathLike[str], words: str, cause: BaseException) -> str:
    return f"{file} {words.replace('{reason}', reason(cause).rstrip('.'))}."


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"it names {shorten(first_repeated([key for key, _ in pairs]))} twice")
    return found


def _check_bytes(promised: int, stored: int, what: str = "the array") -> None:
    if promised != stored:
        raise ValueError(f"the header of {what} promises {promised:,} bytes, and there are {stored:,}")


def _promised_bytes(stream: Any) -> int:
    """How many bytes the header of a ``.npy`` says that follow it, where `stream` then stands."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:  # 3.0 is for field names of structures
        raise ValueError(f"it is of version {version[0]}.{version[1]} of the format; write plain numbers or texts")
    shape, _, dtype = read[version](stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not loaded; save numbers or texts")
    if any(length < 0 for length in shape):
        raise ValueError(f"its header names the shape {shorten(list(shape))}")
    return math.prod(shape) * dtype.itemsize


def _promised_entries(file: Path) -> int:
    """How many entries a zip says it has, at its end; `zipfile` goes by their sizes and drops some if one is wrong."""
    with file.open("rb") as stream:
        stream.seek(-min(file.stat().st_size, _ZIP_END.size + 2**16), os.SEEK_END)  # what follows is a comment
        end = stream.read()
    return _ZIP_END.unpack_from(end, end.rindex(_ZIP_END_MARK))[1]
