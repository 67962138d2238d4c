"""The folder of a training run: what is written when, so that a kill at any moment leaves something whole.

config.yaml             every setting, resolved
policy/                 the exported policy, renewed after each iteration
checkpoints/000012/     the last few iterations; a checkpoint appears under its name only when complete
history.jsonl           figures of each iteration
.origin                 who began the run, see envs.origin
tensorboard/            events; in exported/ those of the exported policy's own episodes, at the end
learning_curve.png      at the end
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from envs.errors import ConfigError, shorten
from envs.files import UNFINISHED, new_file, new_folder, remove_unfinished
from envs.origin import MARK
from envs.reading import parse_json, reading

KEPT_CHECKPOINTS = 3
LOCK_FILE = ".lock"
COUNTS = ("iteration", "episodes")
FIGURES = (*COUNTS, "seconds", "aulc")  # that every row of the history has, beside its algorithm's own


def is_number(name: object) -> bool:
    """Whether a checkpoint may be called so."""
    return isinstance(name, str) and name.isascii() and name.isdigit()


class RunFolder:
    """Paths and atomic writes of one run.

    Args:
        root: the folder; `lock` creates it.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.config = self.root / "config.yaml"
        self.policy = self.root / "policy"
        self.checkpoints = self.root / "checkpoints"
        self.history = self.root / "history.jsonl"
        self.tensorboard = self.root / "tensorboard"
        self.exported = self.tensorboard / "exported"
        self.picture = self.root / "learning_curve.png"
        self._lock: FileLock | None = None

    def lock(self) -> None:
        """Keep a second run out of the folder for as long as this process lives; remove what killed ones left."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"Cannot write into {self.root}: {error.strerror}; choose another --out.") from None
        self._lock = FileLock(self.root / LOCK_FILE)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"{self.root} is in use by another run; wait for it or choose another --out.") from None
        if self.is_run():
            for folder in (self.root, self.policy, self.checkpoints, self.tensorboard):
                remove_unfinished(folder)

    def release(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()

    def is_vacant(self) -> bool:
        """Whether a new run may begin here: nothing but what one left that ended before its first iteration did."""
        if not self.root.exists():
            return True
        if not self.root.is_dir():
            return False
        left = {p.name for p in self.root.iterdir() if p.name != LOCK_FILE and not p.name.startswith(UNFINISHED)}
        return not left or (
            (self.root / LOCK_FILE).exists()  # else these are settings that somebody wrote
            and self.config.name in left
            and left
            <= {p.name for p in (self.config, self.checkpoints, self.history, self.tensorboard, self.root / MARK)}
            and not self.finished_checkpoints()
            and not (self.history.is_file() and self.history.stat().st_size)
        )

    def clear(self) -> None:
        """Remove what a run left that ended before its first iteration did."""
        shutil.rmtree(self.tensorboard, ignore_errors=True)  # its events would stand beside those of the new run

    def is_run(self) -> bool:
        """Whether a run has begun here."""
        return self.config.is_file()

    def write_text(self, path: Path, text: str) -> None:
        """Write a file whole or not at all."""
        with new_file(path) as aside:
            aside.write_text(text, encoding="utf-8")

    def save_checkpoint(self, iteration: int, save: Callable[[str], Any]) -> Path:
        """Let `save(folder)` write a checkpoint aside, then give it its name; prune the oldest."""
        final = self.checkpoints / f"{iteration:06d}"
        with new_folder(final, may_replace=lambda _: True) as aside:
            save(str(aside))
        for old in self.finished_checkpoints()[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def finished_checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        if not self.checkpoints.is_dir():
            return []
        return sorted(p for p in self.checkpoints.iterdir() if is_number(p.name))

    def append_history(self, row: dict[str, Any]) -> None:
        """Add an iteration's figures."""
        with self.history.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def read_history(self, until: int | None = None) -> list[dict[str, Any]]:
        """Figures by iteration, up to and with `until`; a line that a kill cut short is left out."""
        if not self.history.is_file():
            return []
        with reading(self.history, "cannot be read ({reason}); restore it, or train into a new --out", ConfigError):
            *lines, cut = self.history.read_bytes().split(b"\n")
            with suppress(ValueError):  # a last line that lacks nothing but its newline counts
                lines.append(json.dumps(parse_json(cut)).encode())
            rows: list[dict[str, Any]] = [parse_json(line) for line in lines if line.strip()]
            for number, row in enumerate(rows, 1):
                for name in (*FIGURES, *row):
                    if type(row.get(name)) not in (int, float) or (name in COUNTS and type(row[name]) is not int):
                        raise ValueError(f"row {number} has {shorten(row.get(name))} for {shorten(name)}, no number")
            return [row for row in rows if until is None or row["iteration"] <= until]

    def truncate_history(self, until: int) -> list[dict[str, Any]]:
        """Drop the figures after iteration `until`, which will be played again; returns the others."""
        rows = self.read_history(until)
        self.write_text(self.history, "".join(json.dumps(row) + "\n" for row in rows))
        return rows
