"""Pools at rest: a folder whose features are memory-mapped, or a single ``.npz``::

my_pool/
    pool.json                  schema version, modalities, class names, licence, source
    samples.parquet            id, label, class, split, group, text, picture, present_<modality>
    features/<modality>.npy    [N, D_m]
    pictures/                  whatever the column picture names, relative to my_pool
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from envs.errors import DataError, nearest, shorten
from envs.files import new_folder
from envs.origin import refuse_links_out
from envs.parquet import ParquetTable
from envs.pools import checks, classes, media
from envs.pools.checks import UNKNOWN
from envs.pools.pool import Pool
from envs.reading import parse_json, read_array, read_arrays, read_json, reading, typed

FORMAT = "rl-mba pool"
SCHEMA_VERSION = 1
_NAMELESS = ("data", "dataset", "features", "pool")  # file names that say nothing; the folder's name is used


def save_pool(pool: Pool, folder: str | os.PathLike[str]) -> Path:
    """Write `pool` as a folder, copies of its pictures included, whole or not at all; return its path.

    An older pool in that place is replaced.

    Raises:
        DataError: if `folder` exists and is not a pool, or cannot be written, or if a picture
            is not there (``dataclasses.replace(pool, picture=None)`` saves without any).
    """
    folder = Path(folder).absolute()
    try:
        with new_folder(folder, _may_replace) as new:
            _write_folder(pool, new)
    except FileExistsError:
        raise DataError(f"{folder} exists and is not a pool folder; choose another place.") from None
    except OSError as error:
        raise DataError(f"Cannot write the pool {folder}: {error}.") from error
    return folder


def _may_replace(path: Path) -> bool:
    try:
        return read_json(path / "pool.json").get("format") == FORMAT
    except DataError:
        return False


def load_pool(path: str | os.PathLike[str]) -> Pool:
    """Load a pool folder (features memory-mapped) or an ``.npz``.

    An ``.npz`` holds ``x_<modality>`` [N, D] and ``y`` [N] (whole numbers or strings; -1, NaN
    or "" for unknown; without it all are), and may hold ``split``, ``ids``, ``class_names``, ``group``, ``text``,
    ``picture`` (paths relative to the folder of the ``.npz``) and ``present_<modality>``
    (bool [N]). Whether the pictures exist is not checked.

    Raises:
        DataError: if the path is missing, damaged, of another format, or its content is invalid.
    """
    path = Path(path)
    with reading(path):
        try:
            if not path.exists():
                raise DataError("no such file or folder.")
            if path.is_dir():
                return Pool(**_read_folder(path))
            if path.suffix != ".npz":
                raise DataError("expected a pool folder or a .npz file.")
            return Pool(**_read_npz(path))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def _write_folder(pool: Pool, folder: Path) -> None:
    """Write all files of `pool` into the empty `folder`.

    Raises:
        DataError: if a picture is not there.
        OSError: if a file cannot be read or written.
    """
    (folder / "features").mkdir()
    for modality, x in pool.features.items():
        np.save(folder / "features" / f"{modality}.npy", x, allow_pickle=False)
    classes = [pool.class_names[label] if label >= 0 else None for label in pool.labels]
    table = {"id": pool.ids, "label": pool.labels, "class": pa.array(classes, pa.string())}
    optional: dict[str, Any] = {"split": pool.split, "group": pool.group, "text": pool.text}
    if pool.picture is not None:
        optional["picture"] = media.copy_pictures(pool.picture, pool.ids, folder)
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


def _read_folder(folder: Path) -> dict[str, Any]:
    """Return the fields of the `Pool` in `folder`; the features are memory-mapped.

    Raises:
        DataError, or whatever a library raises.
    """
    info = _read_info(folder)
    refuse_links_out(folder, [folder / "samples.parquet", folder / "features", *(folder / "features").glob("*.npy")])
    features = {}
    for entry in typed(list[dict[str, Any]], info["modalities"]):
        modality = str(entry["name"])
        checks.check_modality_name(modality)  # before it becomes a path
        file = folder / "features" / f"{modality}.npy"
        with reading(file.name):
            x = read_array(file)
        if x.ndim != 2 or x.shape[1] != entry["dim"]:
            raise DataError(f"{file.name} has shape {list(x.shape)}, not [N, {shorten(entry['dim'])}].")
        features[modality] = x
    with reading("samples.parquet"):
        stored = ParquetTable(folder / "samples.parquet")
        if any(len(x) != stored.num_rows for x in features.values()):  # before all of them are read
            raise DataError(f"samples.parquet has {stored.num_rows:,} rows, and the features have {len(x):,}.")
        table = stored.read()
    needed = {"id", "label"} | {f"present_{m}" for m in features}
    if needed - set(table):
        raise DataError(f"samples.parquet lacks {', '.join(sorted(needed - set(table)))}.")
    fields: dict[str, Any] = {
        "name": str(info["name"]),
        "features": features,
        "present": np.stack([np.asarray(table[f"present_{m}"]) for m in features], axis=1),
        "labels": np.asarray(table["label"]),
        "class_names": typed(tuple[str, ...], info["class_names"]),
        "ids": checks.strings("id", table["id"]),
        **{f: checks.strings(f, table[f]) for f in ("group", "text") if f in table},
        **{f: np.asarray(table[f]) for f in ("split",) if f in table},
        **{f: str(info.get(f, "")) for f in ("licence", "source", "notes")},
    }
    if "picture" in table:
        fields["picture"] = media.absolute_paths("picture", table["picture"], folder)
    return fields


def _read_info(folder: Path) -> dict[str, Any]:
    """The content of pool.json."""
    if not (folder / "pool.json").is_file():
        raise DataError("not a pool folder (it has no pool.json).")
    with reading("pool.json"):
        info = parse_json((folder / "pool.json").read_text("utf-8"))
    if info.get("format") != FORMAT:
        raise DataError(f'pool.json does not describe a pool (no "format": "{FORMAT}").')
    if info.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"schema version {shorten(info.get('schema_version'))} is not supported; this release reads "
            f"version {SCHEMA_VERSION}."
        )
    missing = {"name", "modalities", "class_names"} - set(info)
    if missing:
        raise DataError(f"pool.json lacks {', '.join(sorted(missing))}.")
    if not info["modalities"]:
        raise DataError("pool.json names no modality.")
    return info


def _read_npz(file: Path) -> dict[str, Any]:
    """Return the fields of the `Pool` in an ``.npz``.

    Raises:
        DataError, or whatever a library raises.
    """
    arrays = read_arrays(file)
    features = {key[2:]: x for key, x in arrays.items() if key.startswith("x_")}
    if not features:
        raise DataError(f"no array named x_<modality>; it holds {', '.join(arrays) or 'nothing'}.")
    known = {"y", "split", "ids", "class_names", "group", "text", "picture"}
    known |= {f"present_{m}" for m in features}
    extra = sorted(set(arrays) - known - {f"x_{m}" for m in features})
    for name in extra:  # a slip of the pen is an error; files may hold more than what is of use here
        if name.startswith("present_") or nearest(name, known):
            raise DataError(f"unknown array '{name}'.{nearest(name, known)}")
    for modality, x in features.items():
        checks.check_matrix(modality, x)
    n = len(next(iter(features.values())))
    y = arrays.get("y", np.full(n, UNKNOWN))
    labels, class_names = _decode_labels(y, arrays.get("class_names"))
    present = [np.asarray(arrays.get(f"present_{m}", np.ones(n, bool))) for m in features]
    for modality, column in zip(features, present, strict=True):
        if column.shape != (n,):
            raise DataError(f"present_{modality} has shape {list(column.shape)}, not [{n}].")
    picture = arrays.get("picture")
    return {
        "name": (file.absolute().parent.name if file.stem in _NAMELESS else "") or file.stem,
        "features": features,
        "present": np.stack(present, axis=1),
        "labels": labels,
        "class_names": class_names,
        "ids": arrays.get("ids", np.arange(n).astype(str)),
        **{f: arrays.get(f) for f in ("split", "group", "text")},
        "picture": None if picture is None else media.absolute_paths("picture", picture, file.parent),
        "source": file.name,
        "notes": f"Arrays not used: {', '.join(extra)}." if extra else "",
    }


def _decode_labels(y: np.ndarray, class_names: np.ndarray | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels int64 [N] and the class names, from numbers or strings."""
    if y.ndim != 1 or y.dtype.kind not in "iufU":
        raise DataError(f"y must be numbers or strings [N] but is {y.dtype} {list(y.shape)}.")
    names = None if class_names is None else classes.declared(class_names.tolist())
    if y.dtype.kind == "U":
        return _decode_names(y.tolist(), names)
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


def _decode_names(y: list[str], names: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """`_decode_labels` of strings."""
    vocabulary = classes.Vocabulary(
        names or (),
        closed=names is not None,
        declare="in class_names",
        empty='make it ""',
        counts=classes.spellings(y),
    )
    found: list[str] = []
    for row, label in enumerate(y):
        try:
            found.append(vocabulary.find(label) if classes.spelling(label) else "")
        except DataError as error:
            raise DataError(f"row {row}: {error}") from None
    known = tuple(sorted(vocabulary.names)) if names is None else names
    index = {name: i for i, name in enumerate(known)} | {"": UNKNOWN}
    return np.array([index[name] for name in found], np.int64), known
