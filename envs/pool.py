"""The pool: every sample of a data set with its features, labels and presence of modalities.

A pool lives in a folder whose features are memory-mapped, or in a single ``.npz``::

    my_pool/
        pool.json                  schema version, modalities, class names, licence, source
        samples.parquet            id, label, class, split, group, text, present_<modality>
        features/<modality>.npy    [N, D_m]
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from envs import pool_checks as checks
from envs.errors import DataError, nearest
from envs.pool_checks import UNKNOWN

FORMAT = "rl-mba pool"
SCHEMA_VERSION = 1

# What numpy, zipfile and pyarrow raise on files that are damaged or something else entirely.
_BROKEN_FILE = (
    OSError, ValueError, KeyError, EOFError, TypeError, SyntaxError, RuntimeError, OverflowError,
    zipfile.BadZipFile, zlib.error, struct.error, pa.ArrowException,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pool:
    """All samples of one data set. Validated on construction; the arrays are read-only.

    Attributes:
        name: what tables and run folders call the data set.
        features: modality -> [N, D_m], floating or integer, may be memory-mapped. Rows whose
            modality is absent may hold anything; `take` returns zeros for them.
        present: bool [N, M], columns in the order of `features`.
        labels: int64 [N], index into `class_names`, -1 where unknown.
        class_names: one name per class.
        ids: str [N], unique and stable; labels and journals refer to samples by id.
        split: int8 [N] (0 train, 1 validation, 2 test) or None where the data set fixes none.
        group: str [N] or None; samples of one group (a subject, say) never serve in two roles.
        text: str [N] or None; a form of the sample that a person can read.
        licence, source, notes: where the data comes from and on which terms.

    Raises:
        DataError: naming the modality, the row and its id, the value, and what to do.
    """

    name: str
    features: dict[str, np.ndarray]
    present: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    ids: np.ndarray
    split: np.ndarray | None = None
    group: np.ndarray | None = None
    text: np.ndarray | None = None
    licence: str = ""
    source: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        if not self.features:
            raise DataError(f"Pool '{self.name}' has no modality; give at least one [N, D] array.")
        features = {str(m): _read_only(np.asanyarray(x)) for m, x in self.features.items()}
        for modality, x in features.items():
            checks.check_matrix(modality, x)
        first, n = next((m, len(x)) for m, x in features.items())
        if n == 0:
            raise DataError(f"Pool '{self.name}' has no samples; modality '{first}' is empty.")

        column: dict[str, np.ndarray] = {
            "present": np.asarray(self.present),
            "labels": np.asarray(self.labels),
            "ids": checks.strings("id", self.ids),
        }
        if self.split is not None:
            column["split"] = np.asarray(self.split)
        for field in ("group", "text"):
            if getattr(self, field) is not None:
                column[field] = checks.strings(field, getattr(self, field))
        lengths = {f"modality '{m}'": len(x) for m, x in features.items()}
        lengths |= {field: len(np.atleast_1d(c)) for field, c in column.items()}
        for field, values in column.items():
            if field != "present" and values.ndim != 1:
                raise DataError(f"{field} has shape {list(values.shape)}; it must be [{n}].")
        for field, length in lengths.items():
            if length != n:
                raise DataError(
                    f"Rows do not match: {field} has {length} but modality '{first}' has {n}; "
                    "every array needs one row per sample, in the same order."
                )

        ids, names = column["ids"], checks.checked_class_names(self.class_names)
        checks.check_ids(ids)
        checks.check_presence(column["present"], len(features), ids)
        column["labels"] = checks.checked_labels(column["labels"], names, ids)
        if "split" in column:
            column["split"] = checks.checked_split(column["split"], ids)
        if "group" in column:
            checks.check_groups(column["group"], ids)
        for m, (modality, x) in enumerate(features.items()):
            checks.check_finite(modality, x, column["present"][:, m], ids)

        object.__setattr__(self, "features", features)  # the dataclass is frozen
        object.__setattr__(self, "class_names", names)
        for field, values in column.items():
            object.__setattr__(self, field, _read_only(values))

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities, in the order of the columns of `present`."""
        return tuple(self.features)

    @property
    def num_samples(self) -> int:
        """N, the number of rows."""
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        """C, the number of class names (a class may have no labelled sample yet)."""
        return len(self.class_names)

    def take(self, modality: str, rows: np.ndarray) -> np.ndarray:
        """Features of `rows` as a fresh float64 [len(rows), D_m]; zeros where absent."""
        x = self.features[modality][rows].astype(np.float64)
        x[~self.present[rows, self.modalities.index(modality)]] = 0
        return x

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that can change a result: features, presence, labels, class
        names, ids, split and groups. Independent of the file format, the name and `text`."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for field in ("present", "labels", "ids", "split", "group"):
            values = getattr(self, field)
            if values is None:
                continue
            # Strings go in as JSON: how wide numpy stores them depends on the other rows.
            text = values.dtype.kind == "U"
            digest.update(json.dumps([field, list(values.shape)]).encode())
            digest.update(json.dumps(values.tolist()).encode() if text else _bytes(values))
        for m, (modality, x) in enumerate(self.features.items()):
            kind = x.dtype.newbyteorder("<").str
            digest.update(json.dumps(["feature", modality, list(x.shape), kind]).encode())
            for start, block in checks.blocks(x):
                absent = ~self.present[start : start + len(block), m]
                # Whatever stands in an absent row is no content.
                digest.update(_bytes(np.where(absent[:, None], x.dtype.type(0), block)))
        return digest.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    """The values in C order and one byte order on all platforms."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data.cast("B")


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def save_pool(pool: Pool, folder: str | os.PathLike[str]) -> Path:
    """Write `pool` as a folder and return its path; replaces an older pool of that name.

    All files are written into a temporary folder beside it, which is then renamed: `folder`
    is never half-written. A process that is killed meanwhile leaves a hidden folder behind.

    Raises:
        DataError: if `folder` exists and is not a pool, or cannot be written.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not (folder.is_dir() and _may_replace(folder)):
        raise DataError(f"{folder} exists and is not a pool folder; choose another place.")
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        _write(pool, temporary / "new")
        _swap(temporary / "new", folder, temporary / "old")
    except OSError as error:
        raise DataError(f"Cannot write the pool {folder}: {error}.") from error
    finally:
        # A pool that could not be put back (see `_swap`) is worth more than a clean folder.
        if temporary is not None and (folder.exists() or not (temporary / "old").exists()):
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Rename `new` to `folder`, whose former content goes to `old` or, on failure, back."""
    try:
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)
    finally:
        if old.exists() and not folder.exists():
            os.rename(old, folder)


def _may_replace(folder: Path) -> bool:
    if not any(folder.iterdir()):
        return True
    try:
        return json.loads((folder / "pool.json").read_text("utf-8"))["format"] == FORMAT
    except _BROKEN_FILE:
        return False


def _write(pool: Pool, folder: Path) -> None:
    (folder / "features").mkdir(parents=True)
    for modality, x in pool.features.items():
        np.save(folder / "features" / f"{modality}.npy", x, allow_pickle=False)
    classes = [pool.class_names[label] if label >= 0 else None for label in pool.labels]
    table = {"id": pool.ids, "label": pool.labels, "class": pa.array(classes, pa.string())}
    optional = {"split": pool.split, "group": pool.group, "text": pool.text}
    table |= {field: column for field, column in optional.items() if column is not None}
    table |= {f"present_{m}": np.array(pool.present[:, i]) for i, m in enumerate(pool.modalities)}
    pq.write_table(pa.table(table), folder / "samples.parquet")
    info = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "name": pool.name,
        "num_samples": pool.num_samples,
        "modalities": [{"name": m, "dim": x.shape[1], "dtype": x.dtype.name} for m, x in pool.features.items()],
        "class_names": list(pool.class_names),
        "licence": pool.licence,
        "source": pool.source,
        "notes": pool.notes,
    }
    text = json.dumps(info, indent=2, ensure_ascii=False) + "\n"
    (folder / "pool.json").write_text(text, "utf-8")


def load_pool(path: str | os.PathLike[str]) -> Pool:
    """Load a pool folder (features memory-mapped) or an ``.npz``.

    An ``.npz`` holds ``x_<modality>`` [N, D] and ``y`` [N] (whole numbers or strings; -1, NaN
    or "" for unknown), and may hold ``split``, ``ids``, ``class_names``, ``group``, ``text``
    and ``present_<modality>`` (bool [N]).

    Raises:
        DataError: if the path is missing, damaged, of another format, or its content is invalid.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise DataError("no such file or folder.")
        if path.is_dir():
            return _load_folder(path)
        if path.suffix != ".npz":
            raise DataError("expected a pool folder or a .npz file.")
        return _load_npz(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except _BROKEN_FILE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read: {reason}") from error


def _load_folder(folder: Path) -> Pool:
    if not (folder / "pool.json").is_file():
        raise DataError("not a pool folder (it has no pool.json).")
    info = json.loads((folder / "pool.json").read_text("utf-8"))
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise DataError(f'pool.json does not describe a pool (no "format": "{FORMAT}").')
    if info.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"schema version {info.get('schema_version')!r} is not supported; this release reads "
            f"version {SCHEMA_VERSION}."
        )
    missing = {"name", "modalities", "class_names"} - set(info)
    if missing:
        raise DataError(f"pool.json lacks {', '.join(sorted(missing))}.")
    if not info["modalities"]:
        raise DataError("pool.json names no modality.")
    features = {}
    for entry in info["modalities"]:
        modality = str(entry["name"])
        checks.check_modality_name(modality)  # before it becomes a path
        file = folder / "features" / f"{modality}.npy"
        x = np.load(file, mmap_mode="r", allow_pickle=False)
        if x.ndim != 2 or x.shape[1] != entry["dim"]:
            raise DataError(f"{file.name} has shape {list(x.shape)}, not [N, {entry['dim']}].")
        features[modality] = x
    table = pq.read_table(folder / "samples.parquet").to_pydict()
    needed = {"id", "label"} | {f"present_{m}" for m in features}
    if needed - set(table):
        raise DataError(f"samples.parquet lacks {', '.join(sorted(needed - set(table)))}.")
    return Pool(
        name=str(info["name"]),
        features=features,
        present=np.stack([np.asarray(table[f"present_{m}"]) for m in features], axis=1),
        labels=np.asarray(table["label"]),
        class_names=tuple(info["class_names"]),
        ids=np.asarray(table["id"]),
        **{f: np.asarray(table[f]) for f in ("split", "group", "text") if f in table},
        **{f: str(info.get(f, "")) for f in ("licence", "source", "notes")},
    )


def _load_npz(file: Path) -> Pool:
    with np.load(file, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    features = {key[2:]: x for key, x in arrays.items() if key.startswith("x_")}
    if not features:
        raise DataError(f"no array named x_<modality>; it holds {', '.join(arrays) or 'nothing'}.")
    if "y" not in arrays:
        raise DataError("no array named y (the labels; -1 where unknown).")
    known = {"y", "split", "ids", "class_names", "group", "text"}
    extra = set(arrays) - known - {f"{p}_{m}" for p in ("x", "present") for m in features}
    if extra:
        raise DataError(f"unknown array '{min(extra)}'.{nearest(min(extra), known)}")
    n = len(next(iter(features.values())))
    labels, class_names = _decode_labels(arrays["y"], arrays.get("class_names"))
    present = [np.asarray(arrays.get(f"present_{m}", np.ones(n, bool))) for m in features]
    for modality, column in zip(features, present, strict=True):
        if column.shape != (n,):
            raise DataError(f"present_{modality} has shape {list(column.shape)}, not [{n}].")
    return Pool(
        name=file.stem,
        features=features,
        present=np.stack(present, axis=1),
        labels=labels,
        class_names=class_names,
        ids=arrays.get("ids", np.arange(n).astype(str)),
        **{f: arrays.get(f) for f in ("split", "group", "text")},
        source=file.name,
    )


def _decode_labels(y: np.ndarray, class_names: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels int64 [N] and the class names, from numbers or strings."""
    if y.ndim != 1 or y.dtype.kind not in "iufU":
        raise DataError(f"y must be numbers or strings [N] but is {y.dtype} {list(y.shape)}.")
    names = None if class_names is None else [str(name) for name in class_names]
    if y.dtype.kind == "U":
        names = sorted(set(y.tolist()) - {""}) if names is None else names
        index = {name: i for i, name in enumerate(names)} | {"": UNKNOWN}
        wrong = next((row for row, value in enumerate(y) if value not in index), None)
        if wrong is not None:
            raise DataError(f"row {wrong}: label '{y[wrong]}' is not among class_names.")
        return np.array([index[value] for value in y], dtype=np.int64), tuple(names)
    if y.dtype.kind == "f":
        y = np.where(np.isnan(y), UNKNOWN, y)
        wrong = (y != np.round(y)) | (np.abs(y) > 2**31)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(f"row {row}: label {y[row]} is not a whole number.")
    y = y.astype(np.int64)
    if names is not None or (y < UNKNOWN).any():
        return y, tuple(names or ())
    # Numbers need not start at 0 (the digits 1 to 9, say): the number becomes the class name.
    values, codes = np.unique(y, return_inverse=True)
    unknown = int(values[:1].tolist() == [UNKNOWN])
    return codes.astype(np.int64) - unknown, tuple(str(v) for v in values[unknown:])
