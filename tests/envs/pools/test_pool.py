"""The pool: validation, files, fingerprint."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import envs.files
from envs.errors import DataError, nearest
from envs.pools import Pool, load_pool, save_pool
from envs.pools import checks as pool_checks
from envs.pools import files as pool_files

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
    arrays |= {"split": pool.split, "group": pool.group, "text": pool.text, **changes}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


# --- construction --------------------------------------------------------------------------


def test_properties_and_dtypes() -> None:
    pool = tiny()
    assert pool.modalities == ("image", "text")
    assert (pool.num_samples, pool.num_classes) == (N, 3)
    assert pool.labels.dtype == np.int64
    assert pool.split is not None and pool.split.dtype == np.int8
    with pytest.raises(ValueError, match="read-only"):
        pool.labels[0] = 1


def test_the_arrays_of_the_caller_stay_writable() -> None:
    labels = np.array([0, 1, 2, -1] * 3)
    tiny(labels=labels)
    labels[0] = 2


def test_absent_rows_may_hold_nan_and_are_taken_as_zeros() -> None:
    x = edited(tiny().features["text"], (3, 0), np.nan)
    pool = tiny(features={"image": tiny().features["image"], "text": x})
    taken = pool.take("text", np.array([3, 0]))
    assert taken.dtype == np.float64
    np.testing.assert_array_equal(taken, [np.zeros(3), x[0]])
    taken[:] = 7  # a copy
    assert (pool.take("text", np.array([0])) == x[0]).all()


GOOD = fields()
IMAGE, TEXT = GOOD["features"]["image"], GOOD["features"]["text"]
BAD = {
    "nan": (
        {"features": {"image": IMAGE, "text": edited(TEXT, (5, 2), np.nan)}},
        r"'text', row 5 \(id 'id5'\), column 2: value nan",
    ),
    "infinity": (
        {"features": {"image": IMAGE, "text": edited(TEXT, (0, 0), -np.inf)}},
        r"'text', row 0 \(id 'id0'\), column 0: value -inf",
    ),
    "beyond float32": (
        {"features": {"image": IMAGE, "text": edited(TEXT.astype(float), (1, 1), 1e300)}},
        r"'text', row 1 \(id 'id1'\), column 1: value 1e\+300",
    ),
    "rows of features": ({"features": {"image": IMAGE, "text": TEXT[:9]}}, "'text' has 9 .* 12"),
    "rows of labels": ({"labels": GOOD["labels"][:7]}, "labels has 7 but modality 'image' has 12"),
    "rows of ids": ({"ids": GOOD["ids"][:7]}, "ids has 7"),
    "rows of split": ({"split": GOOD["split"][:7]}, "split has 7"),
    "rows of group": ({"group": GOOD["group"][:7]}, "group has 7"),
    "rows of picture": ({"picture": np.array(["a.png"] * 7)}, "picture has 7"),
    "no picture": ({"picture": np.array(["a.png"] * 11 + [None])}, r'Row 11 has no picture.*\(""'),
    "rows of presence": ({"present": GOOD["present"][:7]}, "present has 7"),
    "columns of presence": ({"present": np.ones((N, 3), bool)}, r"\[12, 2\].*\[12, 3\]"),
    "presence of another type": ({"present": np.ones((N, 2))}, "present must be bool"),
    "two dimensions": ({"split": np.zeros((N, 2))}, r"split has shape \[12, 2\]"),
    "repeated id": ({"ids": edited(GOOD["ids"], 9, "id2")}, "'id2' occurs in rows 2 and 9"),
    "empty id": ({"ids": edited(GOOD["ids"], 9, "")}, "Row 9 has an empty id"),
    "no id": ({"ids": np.array([*GOOD["ids"][:-1], None])}, "Row 11 has no id"),
    "empty group": ({"group": edited(GOOD["group"], 4, "")}, r"row 4 \(id 'id4'\).*empty group"),
    "label too large": (
        {"labels": edited(GOOD["labels"], 6, 3)},
        r"row 6 \(id 'id6'\) has label 3, outside 0..2",
    ),
    "label too small": ({"labels": edited(GOOD["labels"], 6, -2)}, "row 6 .* has label -2"),
    "label with a fraction": ({"labels": GOOD["labels"] / 2}, "whole numbers"),
    "class with one sample": (
        {"labels": np.array([0, 0, 1, 1, 2, -1] + [0] * 6)},
        r"Class 2 \('Ç'\) has exactly one labelled sample, row 4 \(id 'id4'\)",
    ),
    "repeated class": ({"class_names": ("ant", "bee", "ant")}, "'ant' occurs twice"),
    "no modality": ({"features": {}}, "no modality"),
    "sample without modality": (
        {"present": edited(GOOD["present"], 8, False)},
        r"row 8 \(id 'id8'\) has no modality",
    ),
    "empty": ({"features": {"image": IMAGE[:0], "text": TEXT[:0]}}, "no samples"),
    "split": ({"split": edited(GOOD["split"], 2, 3)}, r"row 2 \(id 'id2'\) has split 3"),
    "features in one dimension": ({"features": {"image": IMAGE[:, 0]}}, r"'image' has shape \[12"),
    "features of width 0": ({"features": {"image": IMAGE[:, :0]}}, r"shape \[12, 0\]"),
    "features that are text": ({"features": {"image": IMAGE.astype(str)}}, "'image' holds <U"),
    "modality name": ({"features": {"../x": IMAGE}}, r"'\.\./x' cannot be a file name"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    changes, message = BAD[case]
    with pytest.raises(DataError, match=message):
        tiny(**changes)


def test_large_arrays_are_scanned_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny().fingerprint
    monkeypatch.setattr(pool_checks, "_BLOCK_BYTES", 30)  # two or so rows
    assert tiny().fingerprint == whole
    x = edited(TEXT, (7, 1), np.nan)
    with pytest.raises(DataError, match=r"row 7 \(id 'id7'\), column 1"):
        tiny(features={"image": IMAGE, "text": x})


# --- files ---------------------------------------------------------------------------------


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


BAD_NPZ = {
    "no features": ({"x_image": None, "x_text": None, "present_text": None}, "x_<modality>"),
    "no labels": ({"y": None}, "no array named y"),
    "label with a fraction": ({"y": np.arange(N) / 2}, "row 1: label 0.5"),
    "unknown label": ({"y": np.array(["ant", "wasp"] * 6)}, "row 1: label 'wasp'"),
    "labels as objects": ({"y": np.array([0, None] * 6)}, "cannot be read"),
    "misspelt array": ({"spilt": np.zeros(N)}, r"'spilt'.* Did you mean 'split'\?"),
    "presence of no modality": ({"present_smell": np.ones(N, bool)}, "unknown array 'present_smell'"),
    "presence of another length": ({"present_text": np.ones(3, bool)}, r"\[3\], not \[12\]"),
    "nan": ({"x_text": edited(TEXT, (5, 2), np.nan)}, r"row 5 \(id 'id5'\), column 2"),
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
    file = write_npz(tmp_path / "a.npz")
    content, whole = file.read_bytes(), load_pool(file)
    rng = np.random.default_rng(0)
    outcomes = Counter()
    for place in rng.integers(0, len(content), 60):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            loaded = load_pool(file)
        except DataError:
            outcomes["refused"] += 1
        else:
            assert_same(loaded, whole)
            outcomes["the same"] += 1
    assert outcomes["refused"] and outcomes["the same"]


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


# --- fingerprint ---------------------------------------------------------------------------


def test_fingerprint_does_not_depend_on_the_file_format(tmp_path: Path) -> None:
    pool = tiny()
    assert load_pool(save_pool(pool, tmp_path / "pool")).fingerprint == pool.fingerprint
    assert load_pool(write_npz(tmp_path / "a.npz")).fingerprint == pool.fingerprint
    fortran = {m: np.asfortranarray(x) for m, x in pool.features.items()}
    assert tiny(features=fortran).fingerprint == pool.fingerprint
    big_endian = {"image": IMAGE, "text": TEXT.astype(">f4")}
    assert tiny(features=big_endian).fingerprint == pool.fingerprint
    assert tiny(ids=GOOD["ids"].astype("U99")).fingerprint == pool.fingerprint
    absent = {"image": IMAGE, "text": edited(TEXT, 3, np.nan)}
    assert tiny(features=absent).fingerprint == pool.fingerprint
    assert tiny(name="other", licence="other", text=None).fingerprint == pool.fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"features": {"image": IMAGE, "text": edited(TEXT, (0, 0), 0.5)}},
        {"features": {"image": IMAGE, "txt": TEXT}},
        {"features": {"text": TEXT, "image": IMAGE}, "present": GOOD["present"][:, ::-1]},
        {"present": np.ones((N, 2), bool)},
        {"labels": edited(GOOD["labels"], 0, 1)},
        {"class_names": ("ant", "bee", "C")},
        {"ids": edited(GOOD["ids"], 0, "x")},
        {"split": edited(GOOD["split"], 0, 1)},
        {"split": None},
        {"group": edited(GOOD["group"], 0, "x")},
    ],
)
def test_fingerprint_changes_with_the_content(changes: dict[str, Any]) -> None:
    assert tiny(**changes).fingerprint != tiny().fingerprint


def test_nearest() -> None:
    assert nearest("EMOJY", ["emoji", "watch"]) == " Did you mean 'emoji'?"
    assert nearest("zzz", ["emoji", "watch"]) == ""
