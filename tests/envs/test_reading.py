"""The guard, and the sizes that it bounds."""

from __future__ import annotations

import io
import json
import struct
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors import SafetensorError

from envs.errors import ConfigError, DataError, PolicyError, shorten
from envs.reading import bounded, first_repeated, parse_json, read_array, read_arrays, read_json, reading, typed

RAISED = [
    ValueError("x"), KeyError("x"), OverflowError("x"), RecursionError("x"), MemoryError(), IndexError("x"), EOFError(),
    UnicodeDecodeError("utf-8", b"\xff" * 10_000, 0, 1, "x"), struct.error("x"), zlib.error("x"), TypeError("x"),
    AttributeError("x"), AssertionError(), OSError(5, "Input/output error"), NotImplementedError("x"), SyntaxError("x"),
    pa.ArrowInvalid("x"), SafetensorError("x"), zipfile.BadZipFile("x"), tokenize.TokenError("x"), RuntimeError("x\ny"),
    json.JSONDecodeError("x", "x", 0), ArithmeticError("x" * 100_000),
]  # fmt: skip


@pytest.mark.parametrize("raised", RAISED, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("kind", [DataError, ConfigError, PolicyError])
def test_whatever_is_raised_becomes_one_short_line_that_names_the_file(raised: Exception, kind: type) -> None:
    with pytest.raises(kind) as error, reading("a/b.bin", error=kind):
        raise raised
    text = str(error.value)
    assert text.startswith("a/b.bin cannot be read: ") and text.endswith(".") and "\n" not in text and len(text) < 300
    assert error.value.__cause__ is raised  # so that a fault of ours can be found


def test_our_errors_and_undefined_names_pass(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"^as it is$"), reading("x"):
        raise PolicyError("as it is")
    with pytest.raises(NameError), reading("x"):
        raise NameError("a slip in our own code")
    with pytest.raises(DataError, match=r"none: no such file\."), reading(tmp_path / "none"):
        (tmp_path / "none").read_bytes()


BAD_JSON = {
    "deep": ("[" * 100_000, "nested too deeply"),
    "a name twice": ('{"a": 1, "b": {"c": 1, "c": 2}}', "names 'c' twice"),
    "half a character": ('{"a": "\\ud83d"}', "half a character"),
    "a list": ("[1]", "not names and values"),
    "a long number": ("9" * 5000, "digits"),
    "two values": ("{} {}", "Extra data"),
    "nothing": ("", "Expecting value"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_json_that_is_refused(case: str, tmp_path: Path) -> None:
    content, words = BAD_JSON[case]
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=words) as error:
        read_json(tmp_path / "x.json")
    assert "x.json" in str(error.value)


def test_whole_pairs_of_surrogates_are_read() -> None:
    assert parse_json('{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


def npy(header: str, body: bytes = b"") -> bytes:
    """A .npy with this header."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + body


HEADERS = {
    "brackets": "(((((",
    "more than there is": "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 4), }",
    "less than there is": "{'descr': '<f8', 'fortran_order': False, 'shape': (1, ), }",
    "negative": "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 4), }",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
    "wide texts": "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (24,), }",
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_promise_something_else(case: str, tmp_path: Path) -> None:
    data = npy(HEADERS[case], bytes(64))
    (tmp_path / "x.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", data)
    for file, read in ((tmp_path / "x.npy", read_array), (tmp_path / "x.npz", read_arrays)):
        with pytest.raises(DataError, match=file.name), reading(file):
            read(file)


def zipped(file: Path, *members: tuple[str, bytes]) -> Path:
    """A packed zip."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file


def test_an_archive_unpacks_to_so_much_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.reading.SMALL", 2**20)
    out = io.BytesIO()
    np.save(out, np.zeros(2**18))
    file = zipped(tmp_path / "x.npz", ("unused.npy", out.getvalue()))
    with pytest.raises(DataError, match=r"unpack to .* times its own size"), reading(file):
        read_arrays(file)
    monkeypatch.undo()
    assert read_arrays(file)["unused"].shape == (2**18,)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    file = zipped(tmp_path / "x.npz", ("a.npy", out.getvalue()), ("a.npy", out.getvalue()))
    with pytest.raises(DataError, match="array 'a' twice"), reading(file):
        read_arrays(file)


BOUNDED = {
    "long": ("#" * 10**6, "characters"),
    "deep": ("[" * 20_000, "nested"),
    "aliases": ("a: &a [1]\nb: &b [" + "*a," * 400 + "]\nc: [" + "*b," * 400 + "]", "aliases"),
    "itself": ("a: &a [*a]", "aliases"),
}


@pytest.mark.parametrize("case", BOUNDED)
def test_settings_that_are_bounded(case: str) -> None:
    import yaml

    text, words = BOUNDED[case]
    began = time.process_time()
    with pytest.raises(ConfigError, match=words), reading("x.yaml", error=ConfigError):
        bounded(yaml.safe_load, text)
    assert time.process_time() - began < 3


def test_types_hold_strictly() -> None:
    assert typed(tuple[str, ...], ["a", "b"]) == ("a", "b")
    for value in ("abc", [1], None, {"a": 1}):
        with pytest.raises(ValueError):
            typed(tuple[str, ...], value)


def test_a_repeated_name_is_found_at_once() -> None:
    assert first_repeated(["a", "b", "c", "b", "a"]) == "b" and first_repeated(["a", "b"]) is None
    began = time.process_time()
    assert first_repeated([str(i) for i in range(200_000)]) is None
    assert time.process_time() - began < 2


LONG: list[Callable[[], object]] = [
    lambda: "x" * 10**6,
    lambda: 10**6000,
    lambda: [["x" * 1000] * 1000] * 1000,
    lambda: {i: i for i in range(10**5)},
    lambda: b"x" * 10**5,
]


@pytest.mark.parametrize("make", LONG)
def test_messages_stay_short(make: Callable[[], object]) -> None:
    assert len(shorten(make())) < 120
    assert len(str(DataError("x" * 10**6))) < 2100


def test_short_values_are_quoted_whole() -> None:
    assert [shorten(v) for v in ("a", 5, 1.5, None, [1, 2], "it's")] == ["'a'", "5", "1.5", "None", "[1, 2]", '"it\'s"']
