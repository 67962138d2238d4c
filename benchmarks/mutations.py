"""Damage of a kind that each format meets: bits, cut ends, other types, names and sizes, rows that moved."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import load, save

Random = random.Random

EVIL: list[Any] = [
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, float("nan"), float("inf"), 10**30, -(10**30), 2**31, 2**63, "",
    " ", "a", "0", "-1", "nan", "../x", "/etc/passwd", "a\0b", "a\nb", "\ud800", "\u202e", "x" * 300, "x" * 5000,
    "x" * 200_000, [], [[]], [None], ["a", "a"], [1, "a"], {}, {"a": 1}, {"": None}, [{}], "skip", [25_000, 25_000],
    [10**12, 10**12], [1.5], ["1"], "abc", ["margin"] * 1000,
]  # fmt: skip
CELLS = [
    "", " ", "nan", "NaN", "None", "1e400", "-1", "7.0", "TRUE", "x" * 600, "x" * 500_000, "\u202e", "a\0b", '"',
    "a\nb",    "../x", "/etc/passwd", "C:\\x", "é", "e\u0301", "=1+1", "skip", "9" * 5000, ",", ";",
]  # fmt: skip
HEADERS = [
    "(" * 20, "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 4), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 4), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000000000000000000000, 4), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (24,), }",
    "{'descr': '<U1000000000', 'fortran_order': False, 'shape': (24,), }",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (True, 2), }",
    "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (24,), }",
    "{'descr': '<f8', 'fortran_order': 1, 'shape': 5}", "{'descr': '<f8'}",
    "__import__('os').system('true')", "[" * 5000,
    "'" + "x" * 9000, "{'descr': '<f0', 'fortran_order': False, 'shape': (1000000000000,), }", "\0" * 40,
]  # fmt: skip
ARRAYS: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda x: x.astype(np.float16), lambda x: x.astype(np.complex64), lambda x: x.astype(">f4"),
    lambda x: x.astype("S8"), lambda x: x.astype("U8"), lambda x: x.astype(bool), lambda x: x.astype("datetime64[s]"),
    lambda x: x[..., None], lambda x: x[:0], lambda x: x[:-1], lambda x: np.array(5), lambda x: np.array("abc"),
    lambda x: np.zeros((len(x), 0)), lambda x: np.zeros(len(x), [("a", "f4"), ("b", "U3")]),
    lambda x: np.full((len(x), 2), np.nan), lambda x: np.full((len(x), 2), 1e300), lambda x: np.full(len(x), 2**63),
    lambda x: np.full(len(x), -5), lambda x: np.full(len(x), 1e19), lambda x: np.arange(len(x)),
    lambda x: np.array(["\ud800"] * len(x)), lambda x: np.array(["a\0b"] * len(x)),
    lambda x: np.array(["../x"] * len(x)), lambda x: np.array([b"\xff"] * len(x)),
    lambda x: np.array(["x" * 20_000] + ["y"] * (len(x) - 1)), lambda x: np.array([["a", "b"]]),
    lambda x: np.asfortranarray(np.ones((len(x), 3))), lambda x: np.array(["1", "2"] * len(x))[: len(x)],
    lambda x: np.array([None] * len(x)),
    lambda x: np.array([f"c{i}" for i in range(20_000)]), lambda x: np.zeros((0, 0)),
]  # fmt: skip
TENSORS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda t: t.flatten()[:3], lambda t: t.to(torch.int64), lambda t: torch.full_like(t, float("nan")),
    lambda t: torch.full_like(t, float("inf")), lambda t: t.flatten()[:0], lambda t: t.to(torch.complex64),
    lambda t: torch.tensor(1.0), lambda t: t.half(), lambda t: t.bool(), lambda t: t.double(),
    lambda t: t.transpose(0, -1) if t.ndim > 1 else t, lambda t: torch.full_like(t, 3e38),
]  # fmt: skip
COLUMNS: list[Callable[[int], pa.Array]] = [
    lambda n: pa.array([None] * n, pa.null()), lambda n: pa.array([b"\xff"] * n), lambda n: pa.array([1.5] * n),
    lambda n: pa.array([[1.0, 2.0]] * n), lambda n: pa.array([{"a": 1}] * n), lambda n: pa.array([2**63 - 1] * n),
    lambda n: pa.array(["x" * 10_000] + ["y"] * (n - 1)), lambda n: pa.array(["a"] * n).dictionary_encode(),
    lambda n: pa.array([True] * n), lambda n: pa.array([0] * n, pa.timestamp("ns")), lambda n: pa.array(range(n)),
    lambda n: pa.array([float("nan")] * n), lambda n: pa.array([str(i) for i in range(n)]),
]  # fmt: skip
_LAUGHS = "&a0 [x,x,x,x,x,x,x,x,x]"
for _level in range(1, 8):  # aliases that stand for 9^8 values
    _LAUGHS = f"&a{_level} [{_LAUGHS}" + f",*a{_level - 1}" * 8 + "]"
_PLACES_OF_LAUGHS = (
    "learner: {copies: BOMB}", "seed: BOMB", "datasets: BOMB", "junk: BOMB", "learner: BOMB", "policy: {mlp: BOMB}",
    "policy: {features: BOMB}", "algorithm: BOMB", "reward: {baselines: BOMB}", "? BOMB\n: 1",
)  # fmt: skip
YAMLS = [
    *(text.replace("BOMB", _LAUGHS) for text in _PLACES_OF_LAUGHS),
    "seed: true", "seed: 0x_", "seed: 2024-99-99", "seed: 2024-13-01T25:61:61", "seed: !!int foo", "seed: !!bool foo",
    "seed: !!timestamp foo", "seed: !!binary abc", "seed: !!omap [a: 1]", "!!python/name:os.system ''", "seed: 1_0",
    "seed: " + "9" * 5000, "seed: 1" + ":59" * 3000, "seed: 1e999", "a: &a [*a]", "learner: &a {learner: *a}",
    "<<: [1]", "? [a]\n: 1", "? {a: 1}\n: 1", "seed: 1\nseed: 2", "%YAML 9.9\n---\nseed: 1", "---\na: 1\n---\nb: 2",
    "\tseed: 1", "seed: 'a", "- 1", "5", "[]", "''", "false", "datasets: [1, null]", "policy: {mlp: [1000000000]}",
    "minutes: .nan", "model: {learning_rate: .inf}", "preset: ../../x", "null: 1", ".nan: 1", "learner: [copies]",
    "learner: " + "[" * 20_000, "learner: " + "[" * 2000 + "]" * 2000, "learner: " + "{a: " * 900 + "1" + "}" * 900,
    "a:\n" + "".join(" " * k + "a:\n" for k in range(1, 1500)), "- " * 5000 + "a", "? " * 3000 + "a", "!" * 10_000,
    "#" * 10**6, "k" * 200_000 + ": 1", "seed: |\n" + " " * 10**6 + "x",
]  # fmt: skip
NAMES = ["", "x", "x_", "../x", "a b", "q" * 400, "present_", "y", "ids", "x_image", "é", "text", "x_../../evil"]


def damaged(rng: Random, name: str, content: bytes) -> bytes:
    """The content of a file, damaged at random: by the rules of its format, or byte by byte."""
    suffix = name.rpartition(".")[2]
    if suffix in _BY_FORMAT and rng.random() < 0.6:
        return _BY_FORMAT[suffix](rng, content)
    return rng.choice((_bytes, _bytes, _bytes, _bytes, _bytes, _replaced))(rng, content)


def _replaced(rng: Random, content: bytes) -> bytes:
    whole = [
        b"",
        b"\0" * 4096,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"9" * 5000,
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"\xff" * 9,
    ]
    return rng.choice([*whole, content * 2, content[::-1], content.replace(b"\n", b"\r")])


def _bytes(rng: Random, content: bytes) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        if data:
            _spoil(rng, data, rng.randrange(len(data)), rng.choice([1, 2, 4, 8, 16, 64, 256]))
    return bytes(data)


def _spoil(rng: Random, data: bytearray, i: int, n: int) -> None:
    """Spoil some of `n` bytes behind `i`."""
    part = data[i : i + n]
    match rng.choice(["flip", "flip", "byte", "cut", "double", "fill", "fill", "insert", "end"]):
        case "flip":
            data[i] ^= 1 << rng.randrange(8)
        case "byte":
            data[i] = rng.randrange(256)
        case "cut":
            del data[i : i + n]
        case "double":
            data[i:i] = part
        case "fill":
            data[i : i + n] = rng.choice([b"\0", b"\xff"]) * len(part)
        case "insert":
            data[i:i] = rng.randbytes(n)
        case "end":
            del data[i:]


def _places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if before:
        yield before
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from _places(value[key], (*before, key))


def changed(rng: Random, value: Any) -> Any:
    """A copy of JSON with some values replaced, removed, renamed, wrapped or doubled."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice([1, 1, 1, 2])):
        places = list(_places(value))
        if not places:
            break
        *way, key = rng.choice(places)
        holder = value
        for part in way:
            holder = holder[part]
        match rng.choice(["set"] * 6 + ["remove", "rename", "wrap", "double"]):
            case "set":
                holder[key] = copy.deepcopy(rng.choice(EVIL))
            case "remove":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[rng.choice(["", "x", "../x", "\ud800", f"{key}x", str(key).upper()])] = holder.pop(key)
            case "wrap":
                holder[key] = rng.choice([[holder[key]], {"a": holder[key]}])
            case "double" if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
    return value


def _json(rng: Random, content: bytes) -> bytes:
    text = json.dumps(changed(rng, json.loads(content)), ensure_ascii=rng.random() < 0.9)
    if rng.random() < 0.1:  # a name that stands twice
        text = text.replace('"', '"format": 1, "', 1) if text.startswith("{") else text
    return text.encode(rng.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"]), "surrogatepass")


def _yaml(rng: Random, content: bytes) -> bytes:
    if rng.random() < 0.3:
        return rng.choice(YAMLS).encode()
    return json.dumps(changed(rng, yaml.safe_load(content))).encode()


def _lines(rng: Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.choice(["change", "change", "remove", "double", "swap", "cut"]):
        case "change":
            lines[i] = _json(rng, lines[i]) + b"\n"
        case "remove":
            del lines[i]
        case "double":
            lines.insert(j, lines[i])
        case "swap":
            lines[i], lines[j] = lines[j], lines[i]
        case "cut":
            lines[i] = lines[i][: rng.randrange(len(lines[i]))]
    return b"".join(lines)


def _csv(rng: Random, content: bytes) -> bytes:
    rows = [line.split(",") for line in content.decode().splitlines()]
    i, c = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
    match rng.choice(["cell", "cell", "cell", "remove", "double", "column", "wide", "short", "swap"]):
        case "cell":
            rows[i][c] = rng.choice(CELLS)
        case "remove":
            del rows[i]
        case "double":
            rows.insert(i, rows[rng.randrange(len(rows))])
        case "column":
            for row in rows:
                row.append(row[c])
        case "wide":
            rows = [row + [f"n_{k}" if row is rows[0] else "1" for k in range(3000)] for row in rows]
        case "short":
            del rows[i][c:]
        case "swap":
            for row in rows:
                row[0], row[c] = row[c], row[0]
    separator, end = rng.choice(",,,;\t|"), rng.choice(["\n", "\n", "\r\n", "\r"])
    text = end.join(separator.join(row) for row in rows) + end
    return text.encode(rng.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]), "replace")


def _npy(rng: Random, content: bytes) -> bytes:
    if rng.random() < 0.4:
        text, body = rng.choice(HEADERS).encode(), content[10 + struct.unpack("<H", content[8:10])[0] :]
        return b"\x93NUMPY" + bytes([rng.choice([1, 1, 1, 2, 3, 9]), 0]) + struct.pack("<H", len(text)) + text + body
    out = io.BytesIO()
    np.save(out, rng.choice(ARRAYS)(np.load(io.BytesIO(content))), allow_pickle=True)
    return out.getvalue()


def _npz(rng: Random, content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    i = rng.randrange(len(members))
    name, array = members[i]
    packing = zipfile.ZIP_STORED
    match rng.choice(["change", "change", "change", "remove", "rename", "double", "packing", "bomb"]):
        case "change":
            try:
                members[i] = name, _npy(rng, array)
            except (ValueError, TypeError, IndexError):  # a change that these values do not admit
                del members[i]
        case "remove":
            del members[i]
        case "rename":
            members[i] = rng.choice(NAMES) + ".npy", array
        case "double":
            members.append((name, members[rng.randrange(len(members))][1]))
        case "packing":
            packing = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
        case "bomb":
            members[i] = name, array + bytes(2**22)
            packing = zipfile.ZIP_DEFLATED
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def _parquet(rng: Random, content: bytes) -> bytes:
    table = pq.read_table(io.BytesIO(content))
    c = rng.randrange(table.num_columns)
    match rng.choice(["change", "change", "change", "remove", "rename", "double", "rows"]):
        case "change":
            table = table.set_column(c, table.column_names[c], rng.choice(COLUMNS)(len(table)))
        case "remove":
            table = table.remove_column(c)
        case "rename":
            table = table.rename_columns([rng.choice(NAMES) if k == c else n for k, n in enumerate(table.column_names)])
        case "double":
            table = table.append_column(table.column_names[c], table.column(c))
        case "rows":
            table = rng.choice([table[:0], table[:-1], pa.concat_tables([table, table]), table[::1][5:]])
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _safetensors(rng: Random, content: bytes) -> bytes:
    tensors = load(content)
    name = rng.choice(sorted(tensors))
    match rng.choice(["change", "change", "change", "remove", "rename"]):
        case "change":
            tensors[name] = rng.choice(TENSORS)(tensors[name]).contiguous().clone()
        case "remove":
            del tensors[name]
        case "rename":
            tensors[rng.choice(NAMES)] = tensors.pop(name)
    return save(tensors)


_BY_FORMAT = {
    "json": _json, "jsonl": _lines, "csv": _csv, "npy": _npy, "npz": _npz, "parquet": _parquet,
    "safetensors": _safetensors, "yaml": _yaml,
}  # fmt: skip
