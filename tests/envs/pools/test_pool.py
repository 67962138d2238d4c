"""The pool: validation, fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.errors import DataError
from envs.pools import checks as pool_checks
from envs.pools import load_pool, save_pool
from tests.support.pools import N, edited, fields, tiny, write_npz


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
    "half a character in an id": (
        {"ids": edited(GOOD["ids"].astype(object), 3, "a\ud83d")},
        "Row 3: id .* half",
    ),
    "half a character in a group": ({"group": np.array(["\ud83d"] * N)}, "Row 0: group .* half a char"),
    "half a character in a text": ({"text": np.array(["a"] * 11 + ["\ud83d"])}, "Row 11: text .* half a char"),
    "half a character in its name": ({"name": "\ud83d"}, "pool's name holds half a character"),
    "empty group": ({"group": edited(GOOD["group"], 4, "")}, r"row 4 \(id 'id4'\).*empty group"),
    "label too large": (
        {"labels": edited(GOOD["labels"], 6, 3)},
        r"row 6 \(id 'id6'\) has label 3, outside 0..2",
    ),
    "label too small": ({"labels": edited(GOOD["labels"], 6, -2)}, "row 6 .* has label -2"),
    "label with a fraction": ({"labels": GOOD["labels"] / 2}, "whole numbers"),
    "repeated class": ({"class_names": ("ant", "bee", "ant")}, "'ant' occurs twice"),
    "no modality": ({"features": {}}, "no modality"),
    "sample without modality": (
        {"present": edited(GOOD["present"], 8, False)},
        r"row 8 \(id 'id8'\) has no modality",
    ),
    "empty": ({"features": {"image": IMAGE[:0], "text": TEXT[:0]}}, "no samples"),
    "split": ({"split": edited(GOOD["split"], 2, 3)}, r"row 2 \(id 'id2'\) has split 3"),
    "split as a mask": ({"split": np.arange(N) % 2 == 0}, r"split holds bool; .* give 2 \* is_test"),
    "split in words": ({"split": np.array(["test"] * N)}, "split holds <U4; it must be 0"),
    "class names as one text": ({"class_names": "ant"}, "class_names is 'ant'; give a list"),
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
