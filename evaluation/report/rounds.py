"""The raw rounds as a table: every model that was trained, and every sample that was chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from evaluation.runs import Played, Runs
from evaluation.summarise import number_of_labels
from evaluation.summary import SECONDS


def rounds_table(played: Sequence[Played], names: Sequence[str]) -> pa.Table:
    """One row per data set, strategy, seed and round.

    `labels` is how many are labelled and `sample_ids` which of them are new: the initial ones in round 0, then the
    batch in the order of picking. What is unknown is null: seconds in round 0, modalities of other data sets.
    `peak_memory` (bytes) and `all_labels_accuracy` belong to the seed.
    """
    tables = [_rounds(p, name, n, r) for p, name in zip(played, names, strict=True) for n, r in p.runs.items()]
    return pa.concat_tables(tables, promote_options="default")


def _rounds(played: Played, dataset: str, strategy: str, r: Runs) -> pa.Table:
    seeds, rounds = r.accuracy.shape
    count = seeds * rounds
    index = np.tile(np.arange(rounds), seeds)
    columns: dict[str, pa.Array] = {
        "dataset": pa.array([dataset] * count, pa.string()),
        "strategy": pa.array([strategy] * count, pa.string()),
        "seed": pa.array(np.repeat(r.seeds, rounds), pa.int64()),
        "round": pa.array(index, pa.int64()),
        "labels": pa.array(number_of_labels(played)[index], pa.int64()),
    }

    def add(name: str, values: np.ndarray) -> None:
        columns[name] = pa.array(np.ravel(values).astype(np.float64), from_pandas=True)  # NaN becomes null

    for name in ("accuracy", "soft_accuracy", "hard_accuracy", "class_coverage"):
        add(name, getattr(r, name))
    for m, modality in enumerate(played.pool.modalities):
        add(f"accuracy_{modality}", r.modality_accuracy[:, :, m])
        add(f"weight_{modality}", r.weights[:, :, m])
        add(f"shapley_{modality}", r.shapley[:, :, m])
    for kind in SECONDS:
        add(f"seconds_{kind}", getattr(r, f"seconds_{kind}"))
    for name in ("peak_memory", "all_labels_accuracy"):
        add(name, np.repeat(getattr(r, name), rounds))
    ids = [
        played.pool.ids[rows].tolist()
        for initial, picked in zip(r.initial, r.picked, strict=True)
        for rows in (initial, *picked)
    ]
    columns["sample_ids"] = pa.array(ids, pa.list_(pa.string()))
    return pa.table(columns)


def flat_rounds(table: pa.Table) -> pa.Table:
    """`rounds_table` for CSV, which has no lists: `sample_ids` as a JSON list."""
    at = table.column_names.index("sample_ids")
    texts = [json.dumps(ids, ensure_ascii=False) for ids in table.column(at).to_pylist()]
    return table.set_column(at, "sample_ids", pa.array(texts, pa.string()))
