"""A labelling project is a folder.

my_project/
    project.json        format, schema version, settings, checksums of the features
    journal.jsonl       every batch, answer and undo, in order; see labelling.journal
    .journal_length     how many events that were; makes a loss at the journal's end known
    pool/               the features, memory-mapped; see envs.pools.files
    media.parquet       id; text, and paths of the originals: what a person looks at
    policy/             a copy of the policy that `init` was given, if any
    batches/            batch-0001.csv, ...: to fill in
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Le
from filelock import FileLock, Timeout

from envs.errors import ConfigError, DataError, shorten
from envs.fields import Help, Section
from envs.files import write_text
from envs.origin import refuse_links_out
from envs.pools import Pool, load_pool, media
from envs.pools.checks import VALIDATION
from envs.pools.media import Moved
from envs.reading import first_repeated, read_json, reading, typed
from labelling.journal import Journal
from labelling.state import Contradiction, State, check_class, replay

FORMAT = "rl-mba labelling project"
SCHEMA_VERSION = 2
# Schema version -> what turns the content of such a project.json into that of the next version. The journal is never
# rewritten: whatever events a version wrote, `labelling.events` reads for good.
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda info: info,  # lines of the journal have had checksums since 2; older releases would write some without
}
LOCK_SECONDS = 10.0


class FeaturesError(DataError):
    """The features in a project's folder are not those of its `init`; its labels are still good."""


@dataclass(frozen=True)
class Settings(Section, prefix="labelling."):
    """What `init` decides for good."""

    name: str
    classes: tuple[str, ...] = ()  # empty: every label that is told makes a class
    budget: Annotated[int, Ge(2), Help("labels that the policy plans for")] = 500  # more can be asked
    validation: Annotated[float, Ge(0), Le(0.5), Help("share of every batch that only measures")] = 0.2
    seed: Annotated[int, Ge(0), Help("decides what measures")] = 0
    policy: Annotated[str, Help("policy folder; without it the one that comes with this package")] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.classes:
            check_class(name)
        repeated = first_repeated([name.casefold() for name in self.classes])
        if repeated is not None:
            raise ConfigError(f"Class {shorten(repeated)} is named twice, if only in another case.")


class Project:
    """An open project folder.

    Args:
        path: of the folder.

    Raises:
        DataError: where it is none, is damaged, or comes from a newer release.
        TrustError: where a link leads out of it.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path).absolute()
        refuse_links_out(self.path)
        found = _read_info(self.path / "project.json")
        info = _migrated(found, self.path)
        self._outdated = info if info != found else None
        file = self.path / "project.json"
        with reading(file, "is damaged ({reason}); restore it from a copy"):
            try:
                self.settings = typed(
                    Settings, {field.name: info["settings"][field.name] for field in fields(Settings)}
                )
                self.checksums = typed(dict[str, str], info["features"])
            except ConfigError as error:
                raise DataError(f"{file} is damaged ({error}); restore it from a copy.") from None
        self.journal = Journal(self.path / "journal.jsonl")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the project for writing; the lock ends with the process."""
        lock = FileLock(self.path / ".lock", timeout=LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise DataError(f"{self.path}: another command is writing here; try again when it is done.") from None
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror}.") from None
        try:
            if self._outdated is not None:  # before the first new event, so that older releases refuse the project
                write_text(self.path / "project.json", _info_text(self._outdated))
                self._outdated = None
            yield
        finally:
            lock.release()

    def state(self) -> State:
        """Votes, classes and batches as they stand.

        Raises:
            DataError: where the journal is missing or damaged.
        """
        if not self.journal.path.exists():
            raise DataError(f"{self.journal.path} is missing, and with it every label; restore it from a copy.")
        with reading(self.journal.path, "is damaged ({reason}); restore it from a copy"):
            try:
                return replay(self.journal.read(), self.settings.classes)
            except Contradiction as error:
                raise self.journal.damaged(error.number, str(error)) from None

    @cached_property
    def pool(self) -> Pool:
        """Features and presence; no labels. Its split tells validation rows from the others.

        Raises:
            FeaturesError: where features are not what they were at `init`.
        """
        self._check_features()
        return load_pool(self.path / "pool")

    @property
    def sound(self) -> bool:
        """Whether the features are those of `init`."""
        try:
            return bool(self.pool)
        except FeaturesError:
            return False

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of the pool by id."""
        return {sample: row for row, sample in enumerate(self.pool.ids.tolist())}

    def row(self, sample: str) -> int:
        """Row of the pool of a sample that the journal names.

        Raises:
            DataError: where the pool has no such sample.
        """
        try:
            return self.rows[sample]
        except KeyError:
            raise DataError(
                f"{self.journal.path} names the sample {sample[:60]!r}, which is not in {self.path / 'pool'}; one of "
                "them was changed by hand, damaged or belongs to another project. Restore it from a copy."
            ) from None

    @cached_property
    def held_out(self) -> np.ndarray:
        """Which rows only measure, bool [N]."""
        return np.asarray(self.pool.split == VALIDATION)

    @cached_property
    def media(self) -> dict[str, list[str]]:
        """Texts, and paths of the originals, by kind, in the order of the pool; "" where there is none."""
        file = self.path / "media.parquet"
        with reading(file, "cannot be read ({reason}); restore it from a copy"):
            found = media.read_table(file)
            if any(len(values) != len(self.pool.ids) for values in found.values()):
                raise ValueError("it has another number of rows than the pool")
        # The first projects kept their texts in the pool.
        texts = {} if self.pool.text is None else {"text": self.pool.text.tolist()}
        return texts | found

    def show(self, row: int) -> dict[str, str]:
        """What a person may look at: text, picture and audio of a row, as far as there are any."""
        found = {kind: values[row] for kind, values in self.media.items()}
        return {kind: self._moved(value) if kind in media.FILES else value for kind, value in found.items()}

    @cached_property
    def _moved(self) -> Moved:
        """Where files are that were moved together with the project."""
        return Moved(self.path / "media.parquet", self.path)

    @property
    def policy(self) -> str:
        """Folder of the policy that `init` was given; "": none. Earlier releases took no copy."""
        return str(self.path / self.settings.policy) if self.settings.policy else ""

    @property
    def shown_columns(self) -> tuple[str, ...]:
        """Keys of `show`."""
        return tuple(self.media)

    def batch_file(self, number: int) -> Path:
        """Where a batch is written for people to fill in."""
        return self.path / "batches" / f"batch-{number:04d}.csv"

    def _check_features(self) -> None:
        """Compare checksums, unless neither size nor time of a file changed since they last agreed."""
        seen_file = self.path / ".features_seen.json"
        try:
            seen = read_json(seen_file)
        except DataError:
            seen = {}
        now = {}
        for modality, checksum in self.checksums.items():
            file = self.path / "pool" / "features" / f"{modality}.npy"
            try:
                status = file.stat()
                now[modality] = [checksum, status.st_size, status.st_mtime_ns]
                same = seen.get(modality) == now[modality] or checksum_of(file) == checksum
            except OSError as error:
                raise FeaturesError(f"{file} cannot be read: {error.strerror}; restore it from a copy.") from None
            if not same:
                raise FeaturesError(
                    f"{file} is not what it was at init, so earlier choices no longer fit it. Restore the file, or "
                    "make a new project with the new features; export gives the labels to take along."
                )
        if now != seen:
            with suppress(DataError):  # it only saves time, and the folder may be a copy that is read only
                write_text(seen_file, json.dumps(now))


def write_info(folder: Path, settings: Settings, checksums: Mapping[str, str]) -> None:
    """Write project.json."""
    info = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "settings": asdict(settings), "features": checksums}
    write_text(folder / "project.json", _info_text(info))


def _info_text(info: Mapping[str, Any]) -> str:
    return json.dumps(info, indent=2, ensure_ascii=False) + "\n"


def checksum_of(file: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    with open(file, "rb") as binary:
        return hashlib.file_digest(binary, "sha256").hexdigest()


def _read_info(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise DataError(f"{file.parent} is no labelling project; make one with: python run.py init")
    info = read_json(file, "cannot be read ({reason}); restore it from a copy")
    if info.get("format") != FORMAT or not isinstance(info.get("schema_version"), int):
        raise DataError(f"{file} does not describe a labelling project.")
    return info


def _migrated(info: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The content of project.json in the current schema."""
    while info["schema_version"] != SCHEMA_VERSION:
        version = info["schema_version"]
        if version not in MIGRATIONS:
            raise DataError(
                f"{folder} has schema version {version}; this release reads up to version {SCHEMA_VERSION}. "
                "Use the release that made it, or a newer one."
            )
        info = MIGRATIONS[version](info) | {"schema_version": version + 1}
    return info
