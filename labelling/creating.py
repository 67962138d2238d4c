"""`init`: a samples table and features, or a pool, become a project."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from envs.errors import ConfigError, DataError, nearest, shown
from envs.files import data_errors, is_taken, new_folder
from envs.names import is_storable
from envs.parquet import ParquetTable
from envs.pools import Pool, checks, classes, media, save_pool
from envs.reading import read_array, read_arrays, reading
from envs.sources import open_dataset
from labelling.beginning import Beginning
from labelling.journal import Journal
from labelling.project import Project, Settings, checksum_of, write_info
from labelling.tables import PARQUET, columns_of, read_rows
from policies.policy_file import find_policy, load_policy

TABLES = (".csv", ".tsv", ".txt", *PARQUET)  # suffixes of tables
COLUMNS = "columns:"  # features from the samples table itself
POLICY = "policy"  # folder in a project, a copy
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no", "")
_LABELS_PER_EVENT = 100_000


@dataclass(frozen=True)
class Samples:
    """The samples of a new project: features, what people look at, and labels that exist already."""

    pool: Pool  # its labels and texts are not looked at
    media: Mapping[str, Sequence[str] | np.ndarray]  # kind -> texts or absolute paths, [N]
    labels: list[str]  # [N] existing ones, "" for none
    source: str  # where they come from
    short_rows: Sequence[int] = ()  # of the table, without their last cells
    declared: tuple[str, ...] = ()  # labels that a pool declares as classes


def create_project(path: str | os.PathLike[str], samples: Samples, settings: Settings) -> Project:
    """Write a new project; it appears whole or not at all.

    Raises:
        DataError: where the folder exists, a label is outside the classes, or a modality is nobody's.
        PolicyError: where there is no such policy.
    """
    path = Path(path).absolute()
    taken = f"{path} exists; choose another folder."
    if is_taken(path):
        raise DataError(taken)
    _check_storable(f"{path}, {settings.name}", samples)
    policy = settings.policy
    if policy:
        load_policy(policy)
        settings = replace(settings, policy=POLICY)
    beginning = beginning_of(samples, settings)
    told, split = beginning.told, beginning.split
    settings = replace(settings, classes=beginning.fixed)
    if not (split == 0).any():
        raise DataError(
            f"{samples.source}: no sample is left to learn from; its split keeps all of them to measure by."
        )
    for modality, there in zip(samples.pool.modalities, samples.pool.present[split == 0].any(0), strict=True):
        if not there:
            raise DataError(f"{samples.source}: no sample to learn from has the modality '{modality}'; leave it out.")
    pool = replace(
        samples.pool,
        labels=np.full(samples.pool.num_samples, checks.UNKNOWN),
        split=split,
        picture=None,
        text=None,  # an array of texts has room for the longest in every row; `media` has not
        class_names=(),
    )
    with data_errors(path, taken), new_folder(path) as folder:
        save_pool(pool, folder / "pool")
        features = {m: checksum_of(folder / "pool" / "features" / f"{m}.npy") for m in pool.modalities}
        media.write_table(pool.ids, samples.media, folder / "media.parquet", home=path)
        if policy:
            shutil.copytree(find_policy(policy), folder / POLICY)
        write_info(folder, settings, features)
        journal = Journal(folder / "journal.jsonl")
        journal.path.touch()
        new = [] if settings.classes else list(dict.fromkeys(label for _, label, *_ in told if label))
        for low in range(0, len(told), _LABELS_PER_EVENT):
            part = told[low : low + _LABELS_PER_EVENT]
            journal.append("told", files=[Path(samples.source).name], new_classes=new, labels=part, init=True)
            new = []
    return Project(path)


def _check_storable(names: str, samples: Samples) -> None:
    """Refuse what the files of a project cannot hold.

    Args:
        names: its folder and its name.
    """
    if not is_storable(names):
        raise DataError(f"{names!r} is no UTF-8, or holds half a character; choose another name.")
    for kind, values in samples.media.items():
        checks.strings(kind, values)
    for sample in samples.pool.ids.tolist():
        if sample != sample.strip():
            raise DataError(f"{samples.source}: id {shown(sample)} has blanks around it, which tables of labels lose.")


def beginning_of(samples: Samples, settings: Settings) -> Beginning:
    """The classes, labels and measuring rows that a new project begins with."""
    return Beginning(samples.pool, samples.labels, settings, samples.source, samples.declared)


def samples_from_pool(name_or_path: str, with_labels: bool) -> Samples:
    """The samples of a data set by name, of a pool folder or of a pool's .npz."""
    pool = open_dataset(name_or_path)
    labels = [pool.class_names[label] if with_labels and label >= 0 else "" for label in pool.labels]
    shown_by = {kind: values for kind in media.KINDS if (values := getattr(pool, kind, None)) is not None}
    return Samples(pool, shown_by, labels, name_or_path, declared=pool.class_names)


def samples_from_table(table: str, features: Sequence[str], encoding: str | None = None) -> Samples:
    """Samples from a table with a row for each, and features in files or columns.

    Args:
        table: CSV or Parquet with the column id, and maybe label, text, picture, audio, group, split and
            present_<modality>.
        features: MODALITY=FILE.npy (rows as in the table), MODALITY=columns:PATTERN of the table, or FILE.npz with an
            array for each modality.

    Raises:
        DataError, ConfigError: naming file, row and value.
    """
    file = Path(table)
    names = columns_of(file, encoding)
    known = [*media.KINDS, "label", "group", "split"]
    presence = [name for name in names if name.startswith("present_")]
    column: dict[str, list[str]] = {name: [] for name in ["id", *known, *presence] if name in names}
    numbers: list[int] = []
    short: list[int] = []
    for number, values in read_rows(file, ["id"], [name for name in column if name != "id"], encoding, short):
        numbers.append(number)
        for name, into in column.items():
            into.append(values[name])
    if not numbers:
        raise DataError(f"{file} holds no sample: it has a header, but no row.")
    _check_ids(file, column["id"], numbers)
    arrays = _features(file, features, encoding, len(numbers))
    lower = {f"present_{modality}".lower(): modality for modality in arrays}
    for name in presence:
        if name not in lower:
            raise DataError(
                f"{file}, row 1: column '{name}' belongs to no modality.{nearest(name, lower)} "
                f"Modalities: {', '.join(arrays)}."
            )
    present = np.ones((len(numbers), len(arrays)), bool)
    for m, name in enumerate(lower):
        if name in column:
            present[:, m] = [_flag(file, name, *pair) for pair in zip(column[name], numbers, strict=True)]
    split = _split_column(file, column["split"], numbers) if "split" in column else None
    try:
        pool = Pool(
            name=file.stem,
            features=arrays,
            present=present,
            labels=np.full(len(numbers), checks.UNKNOWN),
            class_names=(),
            ids=checks.strings("id", column["id"]),
            group=checks.strings("group", column["group"]) if "group" in column else None,
            split=split,
            source=file.name,
        )
    except DataError as error:
        raise DataError(f"{_place(file, features, str(error))}: {error}") from None
    shown_by: dict[str, Sequence[str] | np.ndarray] = {"text": column["text"]} if "text" in column else {}
    shown_by |= {kind: _paths(file, kind, column[kind], numbers) for kind in media.FILES if kind in column}
    return Samples(pool, shown_by, column.get("label", [""] * len(numbers)), str(file), short_rows=short)


def _check_ids(file: Path, ids: list[str], numbers: list[int]) -> None:
    first: dict[str, int] = {}
    for sample, number in zip(ids, numbers, strict=True):
        if not sample:
            raise DataError(f"{file}, row {number}: no id; give every sample one.")
        if len(sample) > checks.LONGEST_NAME:
            raise DataError(
                f"{file}, row {number}: id {shown(sample)} has {len(sample):,} characters; at most "
                f"{checks.LONGEST_NAME} are possible."
            )
        if sample in first:
            raise DataError(f"{file}: id {shown(sample)} occurs in rows {first[sample]} and {number}; make ids unique.")
        first[sample] = number


def _place(file: Path, features: Sequence[str], problem: str) -> str:
    """The file that a problem with features is in: theirs, where it names their modality, or the table."""
    for text in features:
        modality, _, source = text.partition("=")
        if f"Modality '{modality}'" in problem and source and not source.startswith(COLUMNS):
            return source
    return str(file)


def _paths(file: Path, kind: str, values: list[str], numbers: list[int]) -> np.ndarray:
    """Absolute paths, str [N]."""
    for value, number in zip(values, numbers, strict=True):
        if not media.is_inside(value):
            raise DataError(
                f"{file}, row {number}: {kind} {shown(value)} is no path inside {file.parent.absolute()}; give one "
                f"relative to that folder, without '..', or an address ({', '.join(media.SCHEMES[:3])})."
            )
    return media.absolute_paths(kind, values, file.parent)


def _flag(file: Path, name: str, value: str, number: int) -> bool:
    if classes.spelling(value.lower()) in _YES or classes.truth(value):
        return True
    if classes.spelling(value.lower()) in _NO or classes.truth(value) is False:
        return False
    raise DataError(f"{file}, row {number}: {name} is {shown(value)}; write 1 or 0.")


def _split_column(file: Path, values: list[str], numbers: list[int]) -> np.ndarray:
    named = {"0": 0, "train": 0, "1": 1, "validation": 1, "2": 2, "test": 2}
    for value, number in zip(values, numbers, strict=True):
        if classes.spelling(value.lower()) not in named:
            raise DataError(f"{file}, row {number}: split is {shown(value)}; write train, validation or test.")
    return np.array([named[classes.spelling(value.lower())] for value in values], np.int8)


def _features(file: Path, given: Sequence[str], encoding: str | None, count: int) -> dict[str, np.ndarray]:
    """Features [N, D] by modality."""
    arrays: dict[str, np.ndarray] = {}
    for text in given:
        modality, equals, source = text.partition("=")
        if not equals and Path(text).suffix == ".npz":
            new = {name.removeprefix("x_"): x for name, x in _npz(Path(text)).items()}
        elif not equals or not modality or not source:
            raise ConfigError(f"--features {text!r}: write MODALITY=FILE.npy, MODALITY={COLUMNS}PATTERN, or FILE.npz.")
        elif source.startswith(COLUMNS):
            new = {modality: _from_columns(file, source.removeprefix(COLUMNS), encoding)}
        elif Path(source).suffix == ".npy":
            new = {modality: _npy(Path(source))}
        elif source.endswith(".npz") or ".npz:" in source:
            new = {modality: _one_of_npz(text, source)}
        else:
            raise ConfigError(f"--features {text!r}: {source} is no .npy file; use .npy, .npz or {COLUMNS}PATTERN.")
        for name, x in new.items():
            if name in arrays:
                raise ConfigError(f"--features names modality '{name}' twice.")
            _check_features(f"--features {text}: modality '{name}'", x, file, count)
            arrays[name] = x
    if not arrays:
        raise ConfigError("No features; give --features MODALITY=FILE.npy for each modality.")
    return arrays


def _check_features(what: str, x: np.ndarray, file: Path, count: int) -> None:
    """Refuse what has no row of numbers for each sample."""
    if x.dtype.kind not in "fiub":
        raise DataError(
            f"{what} holds {x.dtype}, no numbers; name the array of an .npz that does, as in MODALITY=FILE.npz:ARRAY."
        )
    if x.ndim != 2:
        raise DataError(
            f"{what} has shape {list(x.shape)}; it needs two dimensions, a row of numbers for each of the {count} "
            f"samples of {file}. For one number each: x[:, None]; pictures need an encoder that gives features."
        )
    if len(x) != count:
        raise DataError(
            f"{what} has shape {list(x.shape)}, but {file} has {count} samples; it needs one row for each, in the "
            "order of the table."
        )


def _one_of_npz(text: str, source: str) -> np.ndarray:
    """One array of an .npz: the one that is named, or the only one with rows of numbers."""
    path, _, wanted = source.partition(".npz:") if ".npz:" in source else (source.removesuffix(".npz"), "", "")
    arrays = _npz(Path(f"{path}.npz"))
    fit = [wanted] if wanted else [name for name, x in arrays.items() if x.ndim == 2 and x.dtype.kind in "fiu"]
    if len(fit) != 1 or fit[0] not in arrays:
        raise ConfigError(
            f"--features {text}: {path}.npz holds {', '.join(arrays) or 'nothing'}; name one array of them, as in "
            "MODALITY=FILE.npz:ARRAY."
        )
    return arrays[fit[0]]


def _npy(file: Path) -> np.ndarray:
    with reading(file, "is no readable array of numbers: {reason}"):
        return read_array(file)


def _npz(file: Path) -> dict[str, np.ndarray]:
    with reading(file, "is no readable .npz of numbers: {reason}"):
        return read_arrays(file)


def _from_columns(file: Path, pattern: str, encoding: str | None) -> np.ndarray:
    """Columns of the table whose names match `pattern`, float32 [N, D]; one column of Parquet may hold lists."""
    names = columns_of(file, encoding)
    chosen = [name for name in names if fnmatch.fnmatchcase(name, pattern.strip().lower())]
    if not chosen:
        raise DataError(f"{file}, row 1: no column matches '{pattern}'.{nearest(pattern, names)}")
    if file.suffix.lower() in PARQUET:
        with reading(file):
            table = ParquetTable(file)
            stored = table.schema.field(names.index(chosen[0]))
            if len(chosen) == 1 and not pa.types.is_primitive(stored.type):
                return _from_lists(file, chosen[0], table.read([stored.name])[stored.name])
    rows = []
    for number, values in read_rows(file, ["id", *chosen], (), encoding):
        try:
            # Nothing at all is for samples that lack the modality; elsewhere the pool refuses NaN.
            empty = not any(values[name] for name in chosen)
            rows.append(np.array([np.nan if empty else float(values[name]) for name in chosen], np.float32))
        except ValueError:
            wrong = next(name for name in chosen if not _is_number(values[name]))
            value = shown(values[wrong]) if values[wrong] else "empty or NaN"
            raise DataError(f"{file}, row {number}: {wrong} is {value}, no number.") from None
    return np.stack(rows)


def _from_lists(file: Path, name: str, lists: list[Any]) -> np.ndarray:
    first = next((row for row, value in enumerate(lists) if value is not None), 0)
    try:
        width = len(lists[first])
        for row, value in enumerate(lists):
            if value is not None and len(value) != width:
                raise DataError(
                    f"{file}, row {row + 2}: {name} holds {len(value)} numbers, row {first + 2} holds {width}."
                )
        absent = np.full(width, np.nan)  # for samples that lack the modality; elsewhere the pool refuses it
        return np.stack([np.asarray(absent if value is None else value, np.float32) for value in lists])
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: column '{name}' does not hold lists of numbers ({error}).") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
