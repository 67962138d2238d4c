"""Every public reader of files, with valid files for it: what `benchmarks.fuzz` damages and has read."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.run_readers import LEFT, read_answer, read_link, write_link
from envs.errors import DataError
from envs.pools import load_pool, save_pool
from envs.sources import open_dataset
from labelling.api import LabellingProject
from labelling.creating import create_project, samples_from_pool, samples_from_table
from labelling.label_studio.tasks import make_tasks, read_export
from labelling.model_file import load_model
from labelling.project import Project, Settings
from labelling.tables import read_rows
from learners.settings import TrainConfig, build, merge, read_yaml, to_yaml
from policies.averaging import average_policies
from policies.policy_file import PRETRAINED, load_policy
from runtime.array_store import ArrayStore

POOL = "synthetic:samples=60,classes=2,modalities=2,dim=3"


@dataclass(frozen=True)
class Reader:
    """A reader, valid files, and which of them are damaged."""

    files: Path  # a folder
    read: Callable[[Path], Any]  # of a folder with these files
    damage: tuple[str, ...]  # patterns
    named: bool = True  # whether refusals name the file; of settings, which flags may set too, they name the setting


def readers(folder: Path) -> dict[str, Reader]:
    """All readers by name, their valid files below an empty folder."""
    pool = open_dataset(POOL)
    save_pool(pool, folder / "pool" / "p")
    _write_npz(pool, folder / "npz")
    _write_table(pool, folder / "table")
    project = _write_project(folder / "project" / "p")
    shutil.copytree(project.path / "out" / "model", folder / "model" / "m")
    shutil.rmtree(project.path / "out")
    shutil.copytree(PRETRAINED, folder / "policy" / "p", ignore=shutil.ignore_patterns("*.md"))
    _write_export(project, folder / "label studio")
    (folder / "settings").mkdir()
    (folder / "settings" / "s.yaml").write_text(to_yaml(TrainConfig()), encoding="utf-8")
    shutil.copytree(folder / "project", folder / "link")
    write_link(Project(folder / "link" / "p"))
    for name, (write, _, _) in LEFT.items():
        write(folder / name)
    ArrayStore(folder / "store").put("k", {"told": np.ones((3, 4)), "mean": np.arange(5.0), "labels": np.array([1])})
    return {
        "pool folder": Reader(folder / "pool", lambda f: load_pool(f / "p").fingerprint, ("p/*", "p/features/*")),
        "pool .npz": Reader(folder / "npz", lambda f: load_pool(f / "p.npz").fingerprint, ("*.npz",)),
        "table": Reader(folder / "table", _read_tables, ("t.csv", "t.parquet")),
        "samples and features": Reader(folder / "table", _read_samples, ("t.csv", "t.parquet", "*.npy", "*.npz")),
        "Label Studio export": Reader(folder / "label studio", lambda f: list(read_export(f / "e.json")), ("*.json",)),
        "labelling project": Reader(
            folder / "project", _read_project, ("p/*.json", "p/*.parquet", "p/pool/*", "p/pool/features/*")
        ),
        "journal": Reader(folder / "project", _read_project, ("p/*.jsonl",)),
        "exported model": Reader(folder / "model", _read_model, ("m/*",)),
        "policy": Reader(folder / "policy", _read_policy, ("p/*",)),
        "settings": Reader(folder / "settings", _read_settings, ("*",), named=False),
        "array store": Reader(folder / "store", _read_store, ("*.npz",)),
        "Label Studio link": Reader(folder / "link", read_link, ("p/label_studio.json",)),
        "Label Studio server": Reader(folder / "label studio", read_answer, ("*.json",), named=False),
    } | {name: Reader(folder / name, read, (damage,)) for name, (_, read, damage) in LEFT.items()}


def digest(value: Any, folder: Path) -> str:
    """SHA-256 (hex) of what was read, wherever the folder is that it was read from."""
    text = repr(_plain(value)).replace(str(folder), "")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value


def _write_npz(pool: Any, folder: Path) -> None:
    folder.mkdir()
    arrays = {f"x_{name}": x for name, x in pool.features.items()}
    text = np.array([f"text {i}" for i in range(pool.num_samples)])
    arrays |= {"y": pool.labels, "ids": pool.ids, "class_names": np.array(pool.class_names), "text": text}
    np.savez(folder / "p.npz", **arrays)


def _write_table(pool: Any, folder: Path) -> None:
    folder.mkdir()
    names, roles = ["id", "label", "text", "group", "split", "n_0", "n_1"], ("test", "train", "train")
    rows = [
        [
            str(sample),
            pool.class_names[label],
            f"text {i}",
            f"g{i // 2}",
            roles[i // 2 % 3],
            "0.5",
            str(i),
        ]
        for i, (sample, label) in enumerate(zip(pool.ids, pool.labels, strict=True))
    ]
    (folder / "t.csv").write_text("\n".join(map(",".join, [names, *rows])) + "\n", encoding="utf-8")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    vectors = pa.array([[float(i), 1.0] for i in range(len(rows))])
    pq.write_table(pa.table({k: list(v) for k, v in columns.items()} | {"vec": vectors}), folder / "t.parquet")
    np.save(folder / "a.npy", next(iter(pool.features.values())))
    np.savez(folder / "b.npz", **pool.features)


def _write_project(path: Path) -> Project:
    path.parent.mkdir()
    create_project(path, samples_from_pool(POOL, False), Settings("p", ("class 0", "class 1"), budget=20))
    project = LabellingProject(path)
    for _ in range(2):
        picked = project.ask(6)
        project.tell({row.id if hasattr(row, "id") else row["id"]: f"class {i % 2}" for i, row in enumerate(picked)})
    project.export(path / "out")
    return project.project


def _write_export(project: Project, folder: Path) -> None:
    folder.mkdir()
    tasks = make_tasks(project, project.state().batches[-1])
    for number, task in enumerate(tasks, 1):
        result = [{"from_name": "label", "to_name": "sample", "type": "choices", "value": {"choices": ["class 0"]}}]
        annotation = {"id": number, "completed_by": 1, "updated_at": "2026-01-01T10:00:00Z", "result": result}
        task["annotations"] = [annotation]
    (folder / "e.json").write_text(json.dumps(tasks), encoding="utf-8")


def _read_tables(folder: Path) -> Any:
    return [list(read_rows(folder / name, ["id", "label"], ["text"])) for name in ("t.csv", "t.parquet")]


def _read_samples(folder: Path) -> Any:
    made = []
    for table, vectors in (("t.csv", "n_*"), ("t.parquet", "vec")):
        given = [f"a={folder / 'a.npy'}", str(folder / "b.npz"), f"v=columns:{vectors}"]
        samples = samples_from_table(str(folder / table), given)
        made += [samples.pool.fingerprint, samples.labels, dict(samples.media)]
    create_project(folder / "made", samples, Settings("made", budget=20))
    return made


def _read_project(folder: Path) -> Any:
    project = Project(folder / "p")
    state = project.state()
    shown = [project.show(row) for row in range(len(project.rows))]
    return project.settings, project.pool.ids, state.votes, state.classes, state.batches, shown


def _read_model(folder: Path) -> Any:
    model = load_model(folder / "m")
    x = {name: t.mean[None] for name, t in zip(model.modalities, model.transforms, strict=True)}
    return model.classes, model.modalities, model.predict_proba(x)


def _read_policy(folder: Path) -> Any:
    selector, card = load_policy(folder / "p")
    average_policies([folder / "p", PRETRAINED])
    return selector.config, card, selector.named_weights()


def _read_settings(folder: Path) -> Any:
    return build(TrainConfig, merge({}, read_yaml(folder / "s.yaml")))


def _read_store(folder: Path) -> Any:
    def refuse(note: str) -> None:
        raise DataError(note)

    return ArrayStore(folder, refuse).get("k")
