"""Parquet tables of others: a text that stands once in the file is held once, and sizes are bounded as those of .npz.

A column may name one long value a million times for the room of one: unpacked it would fill any memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from envs.reading import check_unpacked

ROWS = 4096  # of a batch
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


class ParquetTable:
    """A table whose columns are read in batches.

    Args:
        file: Parquet.

    Raises:
        ValueError, or whatever pyarrow raises, here and in its methods; use it inside of `envs.reading.reading`.
    """

    def __init__(self, file: Path):
        self._size = file.stat().st_size
        plain = pq.ParquetFile(file)
        # Not by column: a damaged description of one ends the process, and not by an exception.
        stored = sum(plain.metadata.row_group(group).total_byte_size for group in range(plain.metadata.num_row_groups))
        check_unpacked(stored, self._size, "its columns")
        self.schema: pa.Schema = plain.schema_arrow
        self.num_rows: int = plain.metadata.num_rows
        texts = [
            field.name for field in self.schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)
        ]
        self._file = pq.ParquetFile(file, read_dictionary=texts)

    def batches(self, names: Sequence[str]) -> Iterator[list[list[Any]]]:
        """The values of these columns, by column, some rows at a time."""
        unpacked = 0
        for batch in self._file.iter_batches(ROWS, columns=list(names)):
            columns = [batch.column(name) for name in names]
            unpacked += sum(map(_bytes, columns))
            check_unpacked(unpacked, self._size, "its texts")
            yield [_values(column) for column in columns]

    def read(self, names: Sequence[str] | None = None) -> dict[str, list[Any]]:
        """The values of these columns, or of all, by name."""
        found: dict[str, list[Any]] = {name: [] for name in (self.schema.names if names is None else names)}
        for columns in self.batches(list(found)):
            for into, values in zip(found.values(), columns, strict=True):
                into += values
        return found


def _bytes(column: pa.Array) -> int:
    """What the texts of a column take when each row has its own."""
    if not isinstance(column, pa.DictionaryArray):
        return 0
    lengths = pc.binary_length(column.dictionary)
    return pc.sum(lengths.take(column.indices)).as_py() or 0


def _values(column: pa.Array) -> list[Any]:
    """A column's values; rows with one text share it."""
    if not isinstance(column, pa.DictionaryArray):
        return column.to_pylist()
    texts = column.dictionary.to_pylist()
    return [None if index is None else texts[index] for index in column.indices.to_pylist()]
