"""The pictures of a pool: copied on saving, found again on loading, never outside the pool."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.errors import DataError
from envs.files import AT_ONCE
from envs.pools import Pool, load_pool, save_pool
from envs.pools import files as pool_files

N = 12
PNG = b"\x89PNG\r\n\x1a\n"


def tiny(**changes: Any) -> Pool:
    fields = {
        "name": "tiny",
        "features": {"image": np.arange(2 * N).reshape(N, 2)},
        "present": np.ones((N, 1), bool),
        "labels": np.array([0, 1] * 6),
        "class_names": ("ant", "bee"),
        "ids": np.array([f"id{i}" for i in range(N)]),
    }
    return Pool(**fields | changes)


def write_npz(path: Path, picture: np.ndarray) -> Path:
    pool = tiny()
    arrays = {"class_names": np.array(pool.class_names), "ids": pool.ids, "picture": picture}
    np.savez(path, x_image=pool.features["image"], y=pool.labels, **arrays)
    return path


def pictured(folder: Path) -> Pool:
    """Four different pictures; rows 4 and 5 share one, the other rows have none."""
    folder.mkdir(exist_ok=True)
    paths = [str(folder / f"{i}.PNG") for i in range(4)]
    for i, path in enumerate(paths):
        Path(path).write_bytes(PNG + bytes([i]))
    return tiny(picture=np.array([*paths[:3], "", paths[3], paths[3]] + [""] * 6))


def contents(pool: Pool) -> list[bytes]:
    assert pool.picture is not None
    return [Path(path).read_bytes() if path else b"" for path in pool.picture.tolist()]


def rewrite_pictures(folder: Path, values: list) -> None:
    table = pool_files.pq.read_table(folder / "samples.parquet").to_pydict() | {"picture": values}
    pool_files.pq.write_table(pool_files.pa.table(table), folder / "samples.parquet")


def test_pictures_are_copied_into_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pictured(tmp_path / "camera")
    expected = contents(pool)
    target = save_pool(pool, tmp_path / "pool")
    shutil.rmtree(tmp_path / "camera")
    stored = pool_files.pq.read_table(target / "samples.parquet")["picture"].to_pylist()
    assert [name == "" for name in stored] == [content == b"" for content in expected]
    assert all(name.startswith("pictures/") and name.endswith(".png") for name in stored if name)
    assert len(os.listdir(target / "pictures")) == 4

    monkeypatch.chdir(tmp_path)
    loaded = load_pool("pool")
    monkeypatch.chdir("/")
    assert contents(loaded) == expected
    assert loaded.picture is not None
    assert loaded.picture.tolist() == [str(target / name) if name else "" for name in stored]
    assert loaded.fingerprint == pool.fingerprint == tiny().fingerprint

    save_pool(dataclasses.replace(loaded, labels=np.array([0, 0, 1, 1] * 3)), target)
    assert contents(loaded) == contents(load_pool(target)) == expected


def test_a_moved_folder_keeps_its_pictures(tmp_path: Path) -> None:
    pool = pictured(tmp_path / "camera")
    save_pool(pool, tmp_path / "pool").rename(tmp_path / "elsewhere")
    assert contents(load_pool(tmp_path / "elsewhere")) == contents(pool)


def test_npz_pictures_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = pictured(tmp_path / "camera")
    names = np.array([f"camera/{Path(path).name}" if path else "" for path in pool.picture.tolist()])
    write_npz(tmp_path / "a.npz", picture=names)
    monkeypatch.chdir(tmp_path)
    loaded = load_pool("a.npz")
    monkeypatch.chdir("/")
    assert contents(loaded) == contents(pool)
    assert loaded.fingerprint == tiny().fingerprint


def test_a_folder_of_many_pictures(tmp_path: Path) -> None:
    """More files than are brought to the disk at once."""
    (tmp_path / "camera").mkdir()
    count = 2 * AT_ONCE + 20
    for i in range(count):
        (tmp_path / "camera" / f"{i}.png").write_bytes(PNG + bytes([i]))
    fields = {"features": {"image": np.ones((count, 2))}, "present": np.ones((count, 1), bool)}
    fields |= {"labels": np.full(count, -1), "ids": np.arange(count).astype(str)}
    pool = tiny(**fields, picture=np.array([str(tmp_path / "camera" / f"{i}.png") for i in range(count)]))
    assert contents(load_pool(save_pool(pool, tmp_path / "pool"))) == contents(pool)


@pytest.mark.parametrize(
    "value",
    ["../a.png", "pictures/../../a.png", "..\\a.png", "/etc/hostname", "\\a.png", "C:\\a.png", "C:a.png", "a\0.png"],
)
def test_pictures_outside_the_pool_are_refused(tmp_path: Path, value: str) -> None:
    values = ["..a/b..png"] * 7 + [value] + [""] * 4  # dots alone lead nowhere
    target = save_pool(tiny(), tmp_path / "pool")
    rewrite_pictures(target, values)
    write_npz(tmp_path / "a.npz", picture=np.array(values))
    for path in (target, tmp_path / "a.npz"):
        with pytest.raises(DataError, match=re.escape(f"{path}: Row 7: picture {value!r} is no path inside")):
            load_pool(path)
    rewrite_pictures(target, values[:7] + [""] * 5)
    assert load_pool(target).picture[0] == str(target / "..a/b..png")


def test_damaged_columns_of_pictures_are_named(tmp_path: Path) -> None:
    target = save_pool(tiny(), tmp_path / "pool")
    rewrite_pictures(target, ["a.png"] * 2 + [None] * 10)
    with pytest.raises(DataError, match="Row 2 has no picture"):
        load_pool(target)
    with pytest.raises(DataError, match="picture has 3"):
        load_pool(write_npz(tmp_path / "a.npz", picture=np.array(["a.png"] * 3)))
    with pytest.raises(DataError, match=r"picture has shape \[12, 1\]"):
        load_pool(write_npz(tmp_path / "a.npz", picture=np.array([["a.png"]] * N)))


def test_a_missing_picture_is_no_error_until_it_is_saved(tmp_path: Path) -> None:
    target = save_pool(pictured(tmp_path / "camera"), tmp_path / "pool")
    shutil.rmtree(target / "pictures")
    loaded = load_pool(target)
    with pytest.raises(DataError, match=r"row 0 \(id 'id0'\): its picture '.*\.png' is not a file"):
        save_pool(loaded, target)
    with pytest.raises(DataError, match="is not a file"):
        save_pool(tiny(picture=np.array([str(tmp_path)] + [""] * 11)), tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["camera", "pool"]
    assert load_pool(target).picture.tolist() == loaded.picture.tolist()
    assert load_pool(save_pool(dataclasses.replace(loaded, picture=None), target)).picture is None
