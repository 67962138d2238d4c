"""A labelling project of ids that spreadsheets rewrite, and what people and Label Studio bring to it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

import run
from labelling.api import LabellingProject
from labelling.creating import create_project, samples_from_table
from labelling.project import Settings

# Ids that spreadsheets rewrite, some of them into each other's.
IDS = ["03", "3", "04", "23E9", "1000000000000000", "1000000000000003", "1-2", "true", "=1+1", "größe_1"]
IDS += [f"s{i}" for i in range(30)]
CLASSES = ("red", "green", "blue")


def init(folder: Path, ids: list[str], **columns: list[str]) -> LabellingProject:
    with open(folder / "samples.csv", "w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("id", *columns), *zip(ids, *columns.values(), strict=True)])
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(len(ids), 4)))
    samples = samples_from_table(str(folder / "samples.csv"), [f"x={folder / 'x.npy'}"])
    create_project(folder / "shop", samples, Settings("shop", classes=CLASSES))
    return LabellingProject(folder / "shop")


def tell(project: LabellingProject, file: Path, *flags: str) -> int:
    return run.main(["tell", str(project.project.path), str(file), *flags])


def write(file: Path, rows: list[dict[str, str]]) -> Path:
    with open(file, "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def labels(project: LabellingProject) -> dict[str, str | None]:
    return {sample: verdict.label for sample, verdict in project.project.state().verdicts().items()}


def annotation(label: Any, **other: Any) -> dict[str, Any]:
    choices = label if isinstance(label, list) else [label]
    result = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": choices}}
    return {"result": [result], "completed_by": 1} | other


def task(sample: str, *annotations: dict[str, Any], **data: Any) -> dict[str, Any]:
    return {"id": 7, "data": {"sample": sample} | data, "annotations": list(annotations)}


def told(project: LabellingProject, folder: Path, *tasks: Any) -> int:
    (folder / "export.json").write_text(json.dumps(tasks))
    return tell(project, folder / "export.json")
