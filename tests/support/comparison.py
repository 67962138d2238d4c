"""Comparisons that take seconds, and what to look at afterwards."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from envs.models.frozen.trainer import FrozenConfig
from envs.simulation import ProtocolConfig
from evaluation.comparison import CompareConfig

DATASET = "synthetic:samples=400,classes=4,modalities=2,dim=8,seed=1"

PROTOCOL = ProtocolConfig(initial_labels=8, batch_size=4, rounds=2)

MODEL = FrozenConfig(hidden=8, steps=8)

STRATEGIES = ("random", "margin", "badge")


def config(**changes) -> CompareConfig:
    settings = {"seeds": 3, "strategies": STRATEGIES, "protocol": PROTOCOL, "model": MODEL}
    return CompareConfig(**({"datasets": (DATASET,)} | settings | changes))


def quiet(*_: object, **__: object) -> None:
    """No progress."""


def without_times(summary: dict) -> dict:
    return {k: v for k, v in summary.items() if not k.startswith(("seconds", "peak_memory"))}


def rounds(out: Path) -> pa.Table:
    """The table of all rounds without its times."""
    table = pq.read_table(out / "rounds.parquet")
    return table.drop_columns([c for c in table.column_names if c.startswith(("seconds", "peak_memory"))])


def files(out: Path) -> set[str]:
    """Names of the chunks that are kept; what a killed process left unfinished begins with a dot."""
    return {p.name for p in (out / "results").glob("[!.]*.npz")}


def count_already_there(lines: list[str]) -> list[str]:
    """What the last progress line says of chunks: "3/5 chunks (2 already there)"."""
    return [line.partition(": ")[2].partition(",")[0] for line in lines if "chunks" in line][-1:]
