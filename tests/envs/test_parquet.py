"""Parquet tables of others: whatever the column's type, and without more room than the file says."""

from __future__ import annotations

import datetime
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envs import parquet, reading
from envs.errors import DataError
from envs.parquet import ParquetTable
from envs.pools import load_pool, save_pool
from envs.sources import open_dataset
from labelling.tables import read_rows

COLUMNS = {
    "text": pa.array(["a", None, "a", "\u00e9"]),
    "large": pa.array(["a", None, "b", "b"], pa.large_string()),
    "bytes": pa.array([b"a", None, b"a", b"\xff"]),
    "dictionary": pa.array(["x", "y", None, "x"]).dictionary_encode(),
    "number": pa.array([1, None, 2, 3]),
    "truth": pa.array([True, None, False, True]),
    "list": pa.array([["a", "b"], None, [], ["a"]]),
    "structure": pa.array([{"a": "x"}, None, {"a": "y"}, {"a": "x"}]),
    "day": pa.array([datetime.date(2026, 1, 2)] * 4),
    "nothing": pa.array([None] * 4, pa.null()),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "t.parquet"


@pytest.mark.parametrize("rows", [1, 3, 4096])
def test_values_of_all_types(rows: int, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS", rows)
    table = pa.table(COLUMNS)
    pq.write_table(table, file, row_group_size=2)
    assert ParquetTable(file).read() == table.to_pydict()
    assert ParquetTable(file).read(["number", "text"]) == table.select(["number", "text"]).to_pydict()
    assert ParquetTable(file).num_rows == 4


def repeated(rows: int, characters: int) -> pa.Array:
    """One text in all rows, for the room of one."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * characters]))


def test_rows_share_a_text(file: Path) -> None:
    pq.write_table(pa.table({"id": list(map(str, range(2000))), "text": repeated(2000, 200_000)}), file)
    tracemalloc.start()
    found = ParquetTable(file).read()
    room = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {len(text) for text in found["text"]} == {200_000}
    assert room < 20e6


def test_one_text_in_too_many_rows(file: Path, tmp_path: Path) -> None:
    """Six GB of texts in a file of some kilobytes, as a table, in a pool and in a project."""
    rows = 6 * reading.SMALL // 500_000
    ids = pa.array(list(map(str, range(rows))))
    pq.write_table(pa.table({"id": ids, "label": ids, "text": repeated(rows, 500_000)}), file)
    assert file.stat().st_size < 1e6
    with pytest.raises(DataError, match=f"{file} cannot be read: its texts unpack to 1.9 GB or more, "):
        list(read_rows(file, ["id"], ["text"]))
    folder = save_pool(open_dataset(f"synthetic:samples={rows},classes=2,modalities=1,dim=2"), tmp_path / "p")
    table = pq.read_table(folder / "samples.parquet")
    pq.write_table(table.append_column("text", repeated(rows, 500_000)), folder / "samples.parquet")
    with pytest.raises(DataError, match=r"p: samples.parquet cannot be read: its texts unpack to"):
        load_pool(folder)


def test_what_a_file_says_of_itself_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros, which are packed well."""
    monkeypatch.setattr(reading, "SMALL", 10**6)
    table = pa.table({"id": np.zeros(10**6, np.int64)})
    pq.write_table(table, file, compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match="its columns unpack to"):
        list(read_rows(file, ["id"]))
    pq.write_table(table, file, compression="none", use_dictionary=False)
    assert len(ParquetTable(file).read()["id"]) == 10**6
