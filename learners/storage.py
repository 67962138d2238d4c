"""Copies of run folders in a shared folder or a bucket, from which a run goes on on any machine.

<storage>/<name of the run folder>/
    ...             as in learners.run_folder
    copied.json     which checkpoints are complete here: written after them
"""

from __future__ import annotations

import json
import posixpath
import sys
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyarrow import ArrowInvalid, fs

from envs.errors import ConfigError, TrustError, shorten
from envs.files import UNFINISHED, new_file
from envs.origin import refuse_links_out
from envs.pools.media import is_inside
from envs.reading import parse_json, reading, reason, typed
from learners.run_folder import LOCK_FILE, RunFolder, is_number

MARKER = "copied.json"
PROBE = "writable"
CONNECTIONS = 8  # files on their way at the same time


def place_of(storage: str, folder: str | Path) -> str:
    """Where the copy of a folder lies."""
    base = storage if "://" in storage else str(Path(storage).expanduser().absolute())
    return f"{base.rstrip('/')}/{Path(folder).absolute().name}"


def open_place(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a folder or URL, and the path in it: of pyarrow (s3, gs, hdfs, …), else of fsspec.

    Raises:
        ConfigError: where neither knows it.
    """
    try:
        return fs.FileSystem.from_uri(place)
    except ArrowInvalid:  # a scheme that it does not know
        pass
    except OSError as error:
        raise ConfigError(f"The storage {place} cannot be reached: {error}.") from error
    try:
        from fsspec.core import url_to_fs

        other, path = url_to_fs(place)
    except (ValueError, ImportError, OSError) as error:
        raise ConfigError(
            f"The storage {place} is not understood ({error}); give a folder, or a URL such as s3://bucket/runs."
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(other)), path


class RunCopy:
    """The copy of one run folder, kept up to date by `send`.

    Args:
        storage: folder or URL that holds the copies of many runs.
        run: the folder that is copied.
        key: the file that makes the folder a run, or a sweep.
        skip: names in it that are not copied.

    Raises:
        ConfigError: where the storage is not understood or cannot be written.
        TrustError: where a link leads out of the copy.
    """

    def __init__(self, storage: str, run: RunFolder, key: str = "config.yaml", skip: Collection[str] = ()):
        self.place = place_of(storage, run.root)
        self._run, self._key, self._skip = run, key, skip
        self._files, self._root = open_place(self.place)
        self._local = isinstance(self._files, fs.LocalFileSystem)
        if self._local:
            refuse_links_out(Path(self._root))
        self._sent: dict[str, tuple[int, int]] = {}
        self._made: set[str] = set()
        self._failure: Exception | None = None
        try:
            self._write(PROBE, b"")
            self._files.delete_file(self._at(PROBE))
        except Exception as error:  # each file system has errors of its own
            raise ConfigError(
                f"Cannot write into the storage {self.place}: {error}; choose another --storage."
            ) from error

    def complete(self) -> list[str] | None:
        """Names of the checkpoints that are whole there, oldest first; None where there is no run.

        Raises:
            ConfigError: where the marker cannot be read.
        """
        try:
            with self._files.open_input_file(self._at(MARKER)) as stream:
                text = stream.read()
        except FileNotFoundError:
            return None
        except Exception as error:  # each file system has errors of its own
            raise ConfigError(f"The copy at {self.place} cannot be read: {reason(error)}.") from error
        with reading(f"{self.place}/{MARKER}", "cannot be read: {reason}", ConfigError):
            names = typed(list[str], parse_json(text)["checkpoints"])
            if wrong := [name for name in names if not is_number(name)]:
                raise ValueError(f"it names the checkpoint {shorten(wrong[0])}")
            return sorted(names)

    def refuse_other_run(self) -> None:
        """Raise ConfigError where a run was copied to before: a new one would mix with it."""
        if self.complete() is not None:
            raise ConfigError(f"{self.place} holds a run already; --resume it, or choose another --out or --storage.")

    def fetch(self) -> None:
        """Bring the copy into the run folder, where it has come further.

        Raises:
            ConfigError: where it cannot be read, or the run folder is in use or not a run's.
            TrustError: where a name there leads out of the run folder.
        """
        there, here = self.complete(), self._run.finished_checkpoints()
        begun, unfinished = (self._run.root / self._key).is_file(), self._run.root / MARKER
        if there is None or (begun and there[-1:] <= [path.name for path in here[-1:]]):
            return
        if not begun and not self._run.is_vacant() and not unfinished.is_file():
            raise ConfigError(f"{self._run.root} is not empty and holds no run; choose another --out.")
        self._run.lock()
        try:
            self._read(MARKER, unfinished)
            names = [name for name in self._listed() if name.partition("/")[0] not in self._skip and not _passing(name)]
            first = [n for n in names if not n.startswith("checkpoints/") and n not in (MARKER, self._key)]
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                list(pool.map(lambda name: self._read(name, self._run.root / name), first))
            for number in there:
                prefix = f"checkpoints/{number}/"
                own = [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
                self._run.save_checkpoint(int(number), self._reader(prefix, own))
            self._read(self._key, self._run.root / self._key)
            unfinished.unlink()
        except OSError as error:
            raise ConfigError(f"The copy at {self.place} cannot be fetched: {error}; try again.") from error
        finally:
            self._run.release()

    def send(self) -> None:
        """Copy what is new. A failure is noted, and made up for by the next call."""
        try:
            self._send()
            self._failure = None
        except Exception as error:  # each file system has errors of its own, and training should survive them all
            if self._failure is None:
                print(f"\nnote: cannot copy to {self.place} at the moment: {error}", file=sys.stderr, flush=True)
            self._failure = error

    def finish(self) -> None:
        """`send` for the last time.

        Raises:
            ConfigError: where the copy could not be completed.
        """
        self.send()
        if self._failure is not None:
            raise ConfigError(
                f"{self._run.root} is whole, but its copy at {self.place} is not: {self._failure}. The same command "
                "with --resume copies again."
            )

    def _send(self) -> None:
        checkpoints = [path.name for path in self._run.finished_checkpoints()]
        found: dict[str, tuple[int, int]] = {}
        for path in sorted(self._run.root.rglob("*")):
            name = path.relative_to(self._run.root)
            if _passing(name.as_posix()) or name.parts[0] in (*self._skip, LOCK_FILE, MARKER) or path.is_dir():
                continue
            state = path.stat()
            found[name.as_posix()] = (state.st_size, state.st_mtime_ns)
        new = [name for name, state in found.items() if self._sent.get(name) != state]

        def send(name: str) -> None:
            self._write(name, (self._run.root / name).read_bytes())
            self._sent[name] = found[name]

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(send, new))
        self._write(MARKER, json.dumps({"checkpoints": checkpoints}).encode())
        folder = fs.FileSelector(self._at("checkpoints"), allow_not_found=True)
        for info in self._files.get_file_info(folder):
            if info.type == fs.FileType.Directory and info.base_name not in checkpoints:
                self._files.delete_dir(info.path)
        self._made = {name for name in self._made if not name.startswith(self._at("checkpoints/"))}
        self._sent = {name: state for name, state in self._sent.items() if name in found}

    def _at(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def _listed(self) -> list[str]:
        infos = self._files.get_file_info(fs.FileSelector(self._root, recursive=True))
        files = [info.path for info in infos if info.type == fs.FileType.File]
        for path in files:
            name = path.removeprefix(self._root.rstrip("/") + "/")  # a key of a bucket may hold anything
            if not name or not is_inside(name):
                raise TrustError(
                    f"The copy at {self.place} holds {path!r}, which leads out of the run folder, to other files. "
                    "Delete it there, or --resume from another copy."
                )
        return [posixpath.relpath(path, self._root) for path in files]

    def _write(self, name: str, content: bytes) -> None:
        path = self._at(name)
        if self._local:
            with new_file(Path(path)) as aside:
                aside.write_bytes(content)
            return
        parent = posixpath.dirname(path)
        if parent not in self._made:
            self._files.create_dir(parent, recursive=True)
            self._made.add(parent)
        with self._files.open_output_stream(path) as stream:  # a bucket shows an object when it is whole
            stream.write(content)

    def _read(self, name: str, to: Path) -> None:
        with self._files.open_input_file(self._at(name)) as stream:
            content = stream.read()
        with new_file(to) as aside:
            aside.write_bytes(content)

    def _reader(self, prefix: str, names: list[str]) -> Callable[[str], None]:
        def read(folder: str) -> None:
            for name in names:
                self._read(prefix + name, Path(folder, name))

        return read


def _passing(name: str) -> bool:
    """Whether a file is still being written, or was when its process was killed."""
    return any(part.startswith(UNFINISHED) for part in name.split("/"))
