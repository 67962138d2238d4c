"""Pools in files: folders and ``.npz``, whole and damaged."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import envs.files
from envs.errors import DataError
from envs.pools import files as pool_files
from envs.pools import load_pool, save_pool
from tests.support.pools import N, assert_same, edited, tiny, write_npz


def test_folder_round_trip(tmp_path: Path) -> None:
    pool = tiny()
    loaded = load_pool(save_pool(pool, tmp_path / "deep" / "pool"))
    assert_same(loaded, pool)
    for field in ("name", "licence", "source", "notes"):
        assert getattr(loaded, field) == getattr(pool, field)
    assert all(isinstance(x, np.memmap) for x in loaded.features.values())
    info = json.loads((tmp_path / "deep" / "pool" / "pool.json").read_text("utf-8"))
    assert info["schema_version"] == 1
    assert [m["dim"] for m in info["modalities"]] == [5, 3]
    assert os.listdir(tmp_path / "deep") == ["pool"]


def test_folder_round_trip_without_the_optional_parts(tmp_path: Path) -> None:
    pool = tiny(split=None, group=None, text=None)
    loaded = load_pool(save_pool(pool, tmp_path / "pool"))
    assert loaded.split is None and loaded.group is None and loaded.text is None


def test_npz_round_trip(tmp_path: Path) -> None:
    loaded = load_pool(write_npz(tmp_path / "mine.npz"))
    assert_same(loaded, tiny())
    assert loaded.name == "mine"


def test_minimal_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_a=np.ones((4, 2)), y=np.array([5, 7, 7, 5]))
    pool = load_pool(tmp_path / "a.npz")
    assert pool.class_names == ("5", "7")
    np.testing.assert_array_equal(pool.labels, [0, 1, 1, 0])
    assert pool.present.all() and pool.ids.tolist() == ["0", "1", "2", "3"]


def test_npz_may_hold_more_than_is_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "birds").mkdir()
    loaded = load_pool(write_npz(tmp_path / "birds" / "data.npz", recorder=np.arange(N), flight=np.ones(2)))
    assert loaded.name == "birds"
    assert loaded.notes == "Arrays not used: flight, recorder."
    monkeypatch.chdir(tmp_path / "birds")
    assert load_pool("data.npz").name == "birds"


@pytest.mark.parametrize("y", [["b", "a", "", "b", "a"], [2.0, 1.0, np.nan, 2.0, 1.0], [2, 1, -1, 2, 1]])
def test_npz_labels_of_every_kind(tmp_path: Path, y: list) -> None:
    np.savez(tmp_path / "a.npz", x_a=np.ones((5, 2)), y=np.array(y))
    pool = load_pool(tmp_path / "a.npz")
    np.testing.assert_array_equal(pool.labels, [1, 0, -1, 1, 0])
    assert pool.num_classes == 2


def test_npz_without_labels(tmp_path: Path) -> None:
    pool = load_pool(write_npz(tmp_path / "a.npz", y=None, class_names=None))
    np.testing.assert_array_equal(pool.labels, np.full(N, -1))
    assert pool.class_names == ()


BAD_NPZ = {
    "no features": ({"x_image": None, "x_text": None, "present_text": None}, "x_<modality>"),
    "features without rows": ({"x_text": np.array(1.0)}, r"'text' has shape \[\]; it must be \[N, D\]"),
    "label below -1": ({"y": np.arange(N) - 3, "class_names": None}, "row 0 .* has label -3, which is no class"),
    "label with a fraction": ({"y": np.arange(N) / 2}, "row 1: label 0.5"),
    "unknown label": ({"y": np.array(["ant", "wasp"] * 6)}, "row 1: label 'wasp'"),
    "labels as objects": ({"y": np.array([0, None] * 6)}, "cannot be read"),
    "misspelt array": ({"spilt": np.zeros(N)}, r"'spilt'.* Did you mean 'split'\?"),
    "presence of no modality": ({"present_smell": np.ones(N, bool)}, "unknown array 'present_smell'"),
    "presence of another length": ({"present_text": np.ones(3, bool)}, r"\[3\], not \[12\]"),
    "nan": ({"x_text": edited(tiny().features["text"], (5, 2), np.nan)}, r"row 5 \(id 'id5'\), column 2"),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz_is_named(tmp_path: Path, case: str) -> None:
    changes, message = BAD_NPZ[case]
    with pytest.raises(DataError, match=message) as caught:
        load_pool(write_npz(tmp_path / "bad.npz", **changes))
    assert "bad.npz" in str(caught.value)


@pytest.mark.parametrize("name", ["pool.json", "samples.parquet", "features/text.npy"])
@pytest.mark.parametrize("damage", ["truncate", "garbage", "empty", "remove"])
def test_damaged_folders_give_data_errors(tmp_path: Path, name: str, damage: str) -> None:
    file = save_pool(tiny(), tmp_path / "pool") / name
    content = file.read_bytes()
    file.unlink()
    if damage != "remove":
        file.write_bytes({"truncate": content[:-20], "garbage": b"\x93NUMPY{[\xff" * 9, "empty": b""}[damage])
    with pytest.raises(DataError, match=str(tmp_path / "pool")):
        load_pool(tmp_path / "pool")


@pytest.mark.parametrize("keep", [0, 10, 200, 900])
def test_truncated_npz_gives_a_data_error(tmp_path: Path, keep: int) -> None:
    file = write_npz(tmp_path / "a.npz")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.npz cannot be read"):
        load_pool(file)


def test_a_flipped_byte_is_refused_or_does_not_matter(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz", x_image=None, present_text=None, class_names=None)
    content, whole = file.read_bytes(), load_pool(file)
    outcomes: Counter[str] = Counter()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            loaded = load_pool(file)
        except DataError:
            outcomes["refused"] += 1
        else:
            assert_same(loaded, whole)
            outcomes["the same"] += 1
    assert outcomes["refused"] and outcomes["the same"]


def test_arrays_are_read_to_their_end(tmp_path: Path) -> None:
    """A type that takes less room leaves a rest, behind which the checksum is compared."""
    file = write_npz(tmp_path / "a.npz", x_text=np.ones((N, 2000), np.float32))
    file.write_bytes(file.read_bytes().replace(b"'<f4'", b"'<f2'"))
    with pytest.raises(DataError, match="promises 48,000 bytes, and there are 96,000"):
        load_pool(file)


def test_npz_may_hold_other_files_and_a_comment(tmp_path: Path) -> None:
    file = write_npz(tmp_path / "a.npz")
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("readme.txt", "PK\5\6 " * 20)
        archive.comment = b"a comment"
    assert_same(load_pool(file), tiny())


BAD_JSON = {
    "version": ({"schema_version": 99}, "schema version 99 is not supported"),
    "format": ({"format": "other"}, "does not describe a pool"),
    "dim": ({"modalities": [{"name": "image", "dim": 4}]}, r"\[12, 5\], not \[N, 4\]"),
    "path": ({"modalities": [{"name": "../image", "dim": 5}]}, "cannot be a file name"),
    "no list": ({"modalities": 3}, "cannot be read"),
    "no modality": ({"modalities": []}, "names no modality"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_pool_json_is_named(tmp_path: Path, case: str) -> None:
    changes, message = BAD_JSON[case]
    file = save_pool(tiny(), tmp_path / "pool") / "pool.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")
    with pytest.raises(DataError, match=message):
        load_pool(tmp_path / "pool")


def test_other_paths_give_data_errors(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b")
    for path, message in (
        (tmp_path / "nowhere", "no such file"),
        (tmp_path, "no pool.json"),
        (tmp_path / "table.csv", r"folder or a \.npz"),
    ):
        with pytest.raises(DataError, match=message):
            load_pool(path)


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("step", ["pq.write_table", "os.rename"])
def test_a_failed_save_leaves_no_half_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, exists: bool, step: str
) -> None:
    target = tmp_path / "pool"
    old = tiny(labels=np.array([0, 1] * 6))
    if exists:
        save_pool(old, target)
    rename = os.rename

    def fail(*args: Any) -> None:
        if step == "os.rename" and Path(args[0]).name != "new":
            return rename(*args)  # the old pool's way out and back
        raise failure

    owner = {"pq.write_table": pool_files.pq, "os.rename": envs.files.os}[step]
    monkeypatch.setattr(owner, step.split(".")[1], fail)
    with pytest.raises(DataError if isinstance(failure, OSError) else KeyboardInterrupt):
        save_pool(tiny(), target)
    assert os.listdir(tmp_path) == (["pool"] if exists else [])
    if exists:
        assert_same(load_pool(target), old)


def test_save_replaces_pools_only(tmp_path: Path) -> None:
    target = save_pool(tiny(), tmp_path / "pool")
    changed = dataclasses.replace(load_pool(target), labels=np.array([0, 1, 2, 2] * 3))
    save_pool(changed, target)  # its features are mapped from the files that it replaces
    assert_same(load_pool(target), changed)

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "file"):
        with pytest.raises(DataError, match="not a pool folder"):
            save_pool(tiny(), tmp_path / name)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"
