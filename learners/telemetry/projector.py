"""A pool for TensorBoard's Projector: its samples as points, and which labels were bought when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from tensorboard.plugins.projector import ProjectorConfig
from torch import Tensor

from envs.pools import Pool
from envs.pools.partition import Start

DIMENSIONS = 64  # at most
ROWS = 5000  # at most; labelled ones are kept before others
COLUMNS = ("label", "bought", "stage", "modalities", "id")
NEVER = "never"
STAGES = ("early", "middle", "late")  # thirds of the rounds: the Projector tells ten colours apart
_CONFIG = "projector_config.pbtxt"  # the name that TensorBoard looks for


@dataclass(frozen=True)
class Points:
    """Samples of one pool."""

    name: str
    features: np.ndarray  # float32 [R, D], D <= DIMENSIONS
    cells: list[tuple[str, ...]]  # R times COLUMNS


def pool_points(name: str, pool: Pool, features: Tensor, start: Start, batches: np.ndarray) -> Points:
    """The pool rows of one episode, ROWS of them at most: those bought, and of the others a random choice.

    Args:
        name: what the Projector calls them.
        features: of the pool, as the task model gets them, [D, P].
        batches: int64 [T, b], pool positions in the order of buying.
    """
    rows = start.roles.pool
    bought, stage = (np.full(len(rows), NEVER, object) for _ in range(2))
    bought[start.initial] = stage[start.initial] = "initial"
    for index, batch in enumerate(batches):
        bought[batch] = f"round {index + 1:02d}"
        stage[batch] = STAGES[index * len(STAGES) // len(batches)]
    priority = np.random.default_rng(start.seed).random(len(rows)) - (bought != NEVER)
    shown = np.sort(np.argsort(priority)[:ROWS])
    cells: list[tuple[str, ...]] = []
    for position in shown:
        row = rows[position]
        has = [m for m, there in zip(pool.modalities, pool.present[row], strict=True) if there]
        label = pool.class_names[pool.labels[row]]
        cells.append((label, bought[position], stage[position], "+".join(has), str(pool.ids[row])))
    return Points(name, reduced(np.asarray(features.cpu())[:, shown].T), cells)


def reduced(x: np.ndarray) -> np.ndarray:
    """Float32 [R, at most DIMENSIONS]: x [R, D] as it is, or its leading principal components."""
    x = np.ascontiguousarray(x, np.float32)
    if x.shape[1] <= DIMENSIONS:
        return x
    centred = x - x.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(centred @ vectors[:, ::-1][:, :DIMENSIONS])


def write_projector(folder: Path, pools: Sequence[Points]) -> None:
    """Write the files that the Projector reads into `folder`, which exists and has none."""
    config = ProjectorConfig()
    for number, points in enumerate(pools):
        tensors, metadata = f"pool{number}_features.tsv", f"pool{number}_samples.tsv"
        # As text: TensorBoard takes a file for text wherever it can be read as such.
        np.savetxt(folder / tensors, points.features, "%.5g", "\t")
        lines = ["\t".join(" ".join(cell.split()) for cell in row) for row in (COLUMNS, *points.cells)]
        (folder / metadata).write_text("\n".join(lines) + "\n", encoding="utf-8")
        config.embeddings.add(
            tensor_name=points.name,
            tensor_path=tensors,
            metadata_path=metadata,
            tensor_shape=points.features.shape,
        )
    (folder / _CONFIG).write_text(text_format.MessageToString(config), encoding="utf-8")
