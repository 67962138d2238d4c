"""What a comparison leaves behind: the page, tables, pictures, raw rounds and TensorBoard curves."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from envs.errors import ConfigError
from envs.names import unique_names
from evaluation.report import pictures
from evaluation.report.page import render_page
from evaluation.report.rounds import flat_rounds, rounds_table
from evaluation.report.tables import markdown, text_table
from evaluation.report.tensorboard import write_board
from evaluation.runs import Played
from evaluation.summarise import summarise_all
from evaluation.summary import Comparison

__all__ = ["text_table", "write_report"]


def write_report(played: Sequence[Played], out: Path) -> Comparison:
    """Write the report into `out`, each file by an atomic rename; summary.json last.

    Args:
        played: at least one data set; a name that occurs twice gets a number.
        out: an existing folder. Files of an earlier report are replaced, others are left alone.

    Returns:
        what the comparison found; summary.json is made of it.

    Raises:
        ConfigError: where a file cannot be written.
    """
    try:
        return _write_all(played, out)
    except OSError as error:
        place = error.filename or out
        raise ConfigError(f"Cannot write the report: {place}: {error.strerror}; choose another folder.") from error


def _write_all(played: Sequence[Played], out: Path) -> Comparison:
    comparison = summarise_all(played)
    names = list(comparison.datasets)
    rounds = rounds_table(played, names)
    _write(out / "rounds.parquet", lambda path: pq.write_table(rounds, path))
    _write(out / "rounds.csv", lambda path: pacsv.write_csv(flat_rounds(rounds), path))
    _write_text(out / "table.md", markdown(comparison))
    files = file_names(names)
    (out / "pictures").mkdir(exist_ok=True)
    for name, content in pictures.draw(played, comparison, files):
        _write(out / "pictures" / name, lambda path, content=content: path.write_bytes(content))
    for name, p in zip(names, played, strict=True):
        for strategy, folder in file_names(list(p.runs)).items():
            write_board(p, strategy, out / "tensorboard" / files[name] / folder)
    _write_text(out / "report.html", render_page(played, comparison))
    content = json.dumps(comparison.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    _write_text(out / "summary.json", content + "\n")
    return comparison


def file_names(names: Sequence[str]) -> Mapping[str, str]:
    """A name for a file or folder for each name, unique also where capitals do not count."""
    plain = [re.sub(r"[^A-Za-z0-9_=.-]+", "_", name).strip("._")[:80].lower() or "unnamed" for name in names]
    return dict(zip(names, unique_names(plain), strict=True))


def _write_text(path: Path, text: str) -> None:
    _write(path, lambda temporary: temporary.write_text(text, "utf-8"))


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
