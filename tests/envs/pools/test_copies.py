"""Exact copies: what counts as one."""

from __future__ import annotations

import numpy as np
import pytest

from envs.pools import Pool
from envs.pools.copies import copies_in, first_copies


def pool(a: np.ndarray, present: np.ndarray) -> Pool:
    rows = len(a)
    features = {"a": a, "b": np.ones((rows, 1), np.int8)}
    return Pool("p", features, present, np.full(rows, -1), (), ids=np.arange(rows).astype(str))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_copies_are_equal_in_every_modality(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.pools.copies._BLOCK", 2)
    a = np.array([[1, 0], [2, 0], [1, -0.0], [9, 9], [8, 8], [0, 0]], dtype)
    present = np.ones((6, 2), bool)
    present[[3, 4], 0] = False  # whatever stands there is no content; absent is not zero
    mine = pool(a, present)
    assert copies_in(mine).tolist() == [0, 1, 0, 3, 3, 5]
    assert first_copies(mine, np.array([2, 4, 0])).tolist() == [0, 1, 0]
