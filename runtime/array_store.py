"""Arrays in files under keys: what took long to compute is computed once."""

from __future__ import annotations

import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from envs.errors import ConfigError

# What zipfile and numpy raise on files that are damaged or something else entirely.
_BROKEN_FILE = (OSError, ValueError, KeyError, EOFError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error,
                struct.error)  # fmt: skip


class ArrayStore:
    """A folder of `<key>.npz` files, each written whole or not at all.

    Several processes may share it: who writes a key last wins, and nobody reads half a file.

    Args:
        folder: made by the first `put`.
        note: called with a line of text where a file is there and cannot be read.
    """

    def __init__(self, folder: str | Path, note: Callable[[str], object] = lambda text: None):
        self.folder, self.note = Path(folder), note

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.folder / f"{key}.npz"

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays of a key; None where there are none, or where their file is damaged."""
        path = self.path(key)
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # compares every checksum; numpy would trust a header
            if damaged:
                raise ValueError(f"checksum of {damaged}")
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except FileNotFoundError:
            return None
        except _BROKEN_FILE as error:
            self.note(f"{path} cannot be read ({str(error) or type(error).__name__}) and is computed again.")
            return None

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store arrays of numbers or strings.

        Raises:
            ConfigError: where the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".unfinished-", dir=self.folder)
        except OSError as error:
            raise ConfigError(f"Cannot write into {self.folder}: {error.strerror}; choose another folder.") from error
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, allow_pickle=False, **arrays)
            temporary.chmod(0o644)
            temporary.replace(self.path(key))
        except OSError as error:
            raise ConfigError(f"Cannot write into {self.folder}: {error.strerror}.") from error
        finally:
            temporary.unlink(missing_ok=True)
