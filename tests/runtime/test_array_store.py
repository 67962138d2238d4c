"""Arrays under keys: whole or not at all, and never trusted when damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.errors import ConfigError
from runtime.array_store import ArrayStore

ARRAYS = {"numbers": np.arange(12, dtype=np.int64).reshape(3, 4), "words": np.array(["a", "bcd"]), "empty": np.zeros(0)}


def test_arrays_come_back_as_they_went(tmp_path: Path) -> None:
    notes: list[str] = []
    store = ArrayStore(tmp_path / "deep" / "folder", notes.append)
    assert store.get("key") is None
    store.put("key", ARRAYS)
    back = store.get("key")
    assert set(back) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)
    store.put("key", {"numbers": np.zeros(1)})  # the last writer wins
    assert list(store.get("key")) == ["numbers"]
    assert [p.name for p in store.folder.iterdir()] == ["key.npz"]
    assert notes == []


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_never_trusted(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    notes: list[str] = []
    store = ArrayStore(tmp_path_factory.getbasetemp() / "damaged", notes.append)
    store.put("key", ARRAYS)
    path = store.path("key")
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    back = store.get("key")
    if back is None:
        assert len(notes) == 1
        assert "cannot be read" in notes[0]
        assert str(path) in notes[0]
    else:  # bits without meaning, such as a time stamp
        assert set(back) == set(ARRAYS)
        assert all(np.array_equal(back[name], array) for name, array in ARRAYS.items())


def test_pickles_are_neither_read_nor_written(tmp_path: Path) -> None:
    notes: list[str] = []
    store = ArrayStore(tmp_path, notes.append)
    np.savez(store.path("key"), thing=np.array([{"a": 1}], dtype=object))
    assert store.get("key") is None
    assert len(notes) == 1
    with pytest.raises(ValueError, match="allow_pickle"):
        store.put("other", {"thing": np.array([{"a": 1}], dtype=object)})
    assert [p.name for p in tmp_path.iterdir()] == ["key.npz"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"Cannot write into .*file"):
        ArrayStore(tmp_path / "file").put("key", ARRAYS)
