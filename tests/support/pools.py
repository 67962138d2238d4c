"""A pool of twelve samples that has everything a pool may have, as fields, as a pool, and as an ``.npz``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from envs.pools import Pool

N = 12


def fields(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    present = np.ones((N, 2), dtype=bool)
    present[3, 1] = False
    return {
        "name": "tiny",
        "features": {
            "image": rng.integers(0, 255, (N, 5)).astype(np.uint8),
            "text": rng.normal(size=(N, 3)).astype(np.float32),
        },
        "present": present,
        "labels": np.array([0, 1, 2, -1] * 3),
        "class_names": ("ant", "bee", "Ç"),
        "ids": np.array([f"id{i}" for i in range(N)]),
        "split": np.array([0, 0, 2, 1] * 3),
        "group": np.array([f"g{i // 4}" for i in range(N)]),
        "text": np.array([f"sample {i} ✓" for i in range(N)]),
        "licence": "CC0-1.0",
        "source": "made up",
        "notes": "two lines\nof notes",
        **changes,
    }


def tiny(**changes: Any) -> Pool:
    return Pool(**fields(**changes))


def edited(array: np.ndarray, index: Any, value: Any) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


def assert_same(a: Pool, b: Pool) -> None:
    assert a.modalities == b.modalities
    assert a.class_names == b.class_names
    for modality in a.modalities:
        np.testing.assert_array_equal(a.features[modality], b.features[modality])
        assert a.features[modality].dtype == b.features[modality].dtype
    for field in ("present", "labels", "ids", "split", "group", "text", "picture"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def write_npz(path: Path, **changes: Any) -> Path:
    pool = tiny()
    arrays = {"x_image": pool.features["image"], "x_text": pool.features["text"]}
    arrays |= {"y": pool.labels, "present_text": pool.present[:, 1]}
    arrays |= {"class_names": np.array(pool.class_names), "ids": pool.ids}
    arrays |= {
        "split": pool.split,
        "group": pool.group,
        "text": None if pool.text is None else pool.text.astype(str),
        **changes,
    }
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path
