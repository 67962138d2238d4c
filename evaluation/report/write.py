"""What a comparison leaves behind: the page, tables, pictures, raw rounds and TensorBoard curves."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from envs.errors import ConfigError
from envs.files import new_file
from envs.names import unique_names
from evaluation.report import pictures
from evaluation.report.page import render_page
from evaluation.report.rounds import flat_rounds, rounds_table
from evaluation.report.tables import markdown, text_table
from evaluation.report.tensorboard import write_board
from evaluation.runs import Played
from evaluation.summarise import summarise_all
from evaluation.summary import Comparison

__all__ = ["text_table", "write_report", "written_in"]


def write_report(played: Sequence[Played], out: Path) -> Comparison:
    """Write the report into `out`, each file whole or not at all; summary.json last.

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


def written_in(out: Path) -> list[Path]:
    """The folders below `out` that an earlier report has files in."""
    return [out / "pictures", *(out / "tensorboard").glob("*/*")]


def _write_all(played: Sequence[Played], out: Path) -> Comparison:
    comparison = summarise_all(played)
    names = list(comparison.datasets)
    rounds = rounds_table(played, names)
    with new_file(out / "rounds.parquet") as aside:
        pq.write_table(rounds, aside)
    with new_file(out / "rounds.csv") as aside:
        pacsv.write_csv(flat_rounds(rounds), aside)
    _write_text(out / "table.md", markdown(comparison))
    files = file_names(names)
    for name, picture in pictures.draw(played, comparison, files):
        with new_file(out / "pictures" / name) as aside:
            aside.write_bytes(picture)
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
    with new_file(path) as aside:
        aside.write_text(text, "utf-8")
