"""Tables that people bring, CSV of any common dialect and Parquet, read row by row; and those that they are given."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.errors import DataError, nearest, shown
from envs.parquet import ParquetTable
from envs.reading import first_repeated, reading

PARQUET = (".parquet", ".pq")
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_NO_TEXT = ("unicode_escape", "raw_unicode_escape", "unicode-escape", "raw-unicode-escape", "utf-7", "idna", "punycode")
_SEPARATOR = re.compile(r'"?sep=(.)"?')

csv.field_size_limit(2**26)  # long texts are welcome; without any limit a quote that never ends fills the memory


def columns_of(file: str | os.PathLike[str], encoding: str | None = None) -> list[str]:
    """Names of the columns, lower case and without surrounding blanks.

    Raises:
        DataError: where the file is missing, empty or no table.
    """
    file = Path(file)
    if file.suffix.lower() in PARQUET:
        return _normalised(file, _parquet(file).schema.names)
    with _text(file, encoding) as text:
        return _header(file, text)[0]


def read_rows(
    file: str | os.PathLike[str],
    required: Sequence[str],
    optional: Sequence[str] = (),
    encoding: str | None = None,
    short: list[int] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows as (number, values by column), empty ones left out; the header is row 1, as in a spreadsheet.

    A row that lacks its last cells has empty ones there: spreadsheets leave out the separators of empty cells.

    Args:
        required: columns that must be there.
        optional: columns that are read where they are there; others are ignored.
        encoding: of a CSV file; UTF-8, or UTF-16 with a byte order mark, without.
        short: receives the numbers of the rows that lack cells, each before the row is given.

    Raises:
        DataError: naming file, row and value.
    """
    file = Path(file)
    parquet = file.suffix.lower() in PARQUET
    for number, values in _parquet_rows(file, required, optional) if parquet else _csv_rows(
        file, required, optional, encoding, short
    ):  # fmt: skip
        if any(values.values()):
            yield number, values


def table_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A CSV file's text: header and rows, missing values empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def for_spreadsheets(text: str) -> str:
    """The text of a CSV file that spreadsheets open by a double click: without a mark some read UTF-8 as cp1252."""
    return text if text.isascii() else "\ufeff" + text


def _csv_rows(
    file: Path, required: Sequence[str], optional: Sequence[str], encoding: str | None, short: list[int] | None
) -> Iterator[tuple[int, dict[str, str]]]:
    number = 1
    with _text(file, encoding) as text:
        try:
            names, reader, header = _header(file, text)
            wanted = _wanted(file, names, required, optional)
            for number, record in enumerate(reader, start=header + 1):
                if any(cell.strip() for cell in record[len(names) :]):
                    raise DataError(
                        f"{file}, row {number}: {len(record)} values, but the header has {len(names)} columns "
                        f"(it begins with {shown(record[0])}); quote values that hold the separator."
                    )
                if short is not None and any(record) and len(record) < len(names):
                    short.append(number)
                if record:
                    yield number, {name: record[i].strip() if i < len(record) else "" for name, i in wanted.items()}
        except UnicodeError:
            raise _undecodable(file, text.encoding) from None
        except csv.Error as error:
            raise DataError(
                f"{file}, row {number + 1}: not a row of a CSV file ({error}); within quotes, a quote is written twice."
            ) from None


def _parquet_rows(file: Path, required: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    table = _parquet(file)
    names = table.schema.names
    wanted = _wanted(file, _normalised(file, names), required, optional)
    number = 1
    with reading(file):
        for columns in table.batches([names[i] for i in wanted.values()]):
            for record in zip(*columns, strict=True):
                number += 1
                yield number, dict(zip(wanted, map(_cell, record), strict=True))


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN stands for nothing in many tables
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers with gaps
        return str(int(value))
    return str(value).strip()


def _parquet(file: Path) -> ParquetTable:
    with reading(file, "is not a readable Parquet file: {reason}"):
        return ParquetTable(file)


def _text(file: Path, encoding: str | None) -> io.TextIOWrapper:
    try:
        if file.is_dir():
            raise DataError(f"{file} is a folder; a table is one file, .csv or .parquet.")
        if file.suffix.lower() in (".jsonl", ".ndjson"):
            raise DataError(f"{file} holds JSON lines; a table is CSV or Parquet. Convert it, with a header.")
        with open(file, "rb") as binary:
            beginning = binary.read(4096)
        if not beginning:
            raise DataError(f"{file} is empty.")
        if encoding is None:
            encoding = next((name for mark, name in _MARKS.items() if beginning.startswith(mark)), "utf-8")
            if encoding != "utf-16" and b"\0" in beginning:
                raise DataError(f"{file} is not a text file (it holds zero bytes); save it as CSV in UTF-8.")
        if codecs.lookup(encoding).name in _NO_TEXT:
            raise LookupError(encoding)
        return open(file, encoding=encoding, newline="")
    except FileNotFoundError:
        raise DataError(f"{file}: no such file.") from None
    except (LookupError, ValueError):
        raise DataError(f"Unknown encoding {shown(encoding)}; use utf-8, cp1252, latin-1 or utf-16, say.") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from None


def _header(file: Path, text: io.TextIOWrapper) -> tuple[list[str], Iterator[list[str]], int]:
    """Names of the columns, a reader that stands behind them, and the row that they are in."""
    try:
        first, row = text.readline(), 1
        separator = max(",;\t", key=first.count)
        if said := _SEPARATOR.fullmatch(first.strip()):  # some spreadsheets say it before the header
            separator, first, row = said[1], text.readline(), 2
        names = next(csv.reader([first], delimiter=separator, strict=True), [])
        return _normalised(file, names), csv.reader(text, delimiter=separator, strict=True), row
    except UnicodeError:
        raise _undecodable(file, text.encoding) from None
    except csv.Error as error:
        raise DataError(f"{file}, row 1: not the header of a CSV file ({error}).") from None


def _normalised(file: Path, names: Sequence[str]) -> list[str]:
    names = [name.strip().lower() for name in names]
    repeated = first_repeated([name for name in names if name])
    if repeated is not None:
        raise DataError(f"{file}, row 1: column {shown(repeated)} occurs twice.")
    return names


def _wanted(file: Path, names: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """The position of each wanted column by name."""
    for name in required:
        if name not in names:
            raise DataError(
                f"{file}, row 1: no column '{name}'.{nearest(name, names)} The header must name "
                f"{', '.join(required)}; it is {shown(', '.join(names))}."
            )
    return {name: names.index(name) for name in (*required, *optional) if name in names}


def _undecodable(file: Path, name: str) -> DataError:
    """An error that names the line at which a file stops being text of its encoding."""
    decoder = codecs.getincrementaldecoder(name)()
    with open(file, "rb") as binary:
        for line, content in enumerate(binary, start=1):
            try:
                decoder.decode(content)
            except UnicodeDecodeError as error:
                value = content[max(error.start - 20, 0) : error.end + 20].decode(name, "replace").strip()
                return DataError(
                    f"{file}, line {line}: {shown(value)} is not {name}; save the file as UTF-8, or name its "
                    "encoding, as in --encoding cp1252."
                )
            except UnicodeError:  # UTF-16 by name, without the mark at its beginning
                return DataError(f"{file} is not {name}; save it as UTF-8, or name its encoding, as in utf-16-le.")
    return DataError(f"{file} ends in the middle of a character; it was cut off, or is not {name}.")
