"""Arrays in files under keys: what took long to compute is computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from envs.errors import ConfigError, DataError
from envs.files import new_file
from envs.reading import read_arrays, reading


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
        if not path.exists():
            return None
        try:
            with reading(path, "cannot be read ({reason}) and is computed again"):
                return read_arrays(path)
        except DataError as error:
            self.note(str(error))
            return None

    def put(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store arrays of numbers or strings.

        Raises:
            ConfigError: where the folder cannot be written.
        """
        try:
            # Not durable: `get` recognises a file that a power cut left empty, and its arrays are computed again.
            with new_file(self.path(key), durable=False) as aside:
                np.savez(aside, allow_pickle=False, **arrays)
        except OSError as error:
            raise ConfigError(f"Cannot write into {self.folder}: {error.strerror}; choose another folder.") from error
