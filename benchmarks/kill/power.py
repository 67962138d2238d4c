"""Power cuts: a disk in a file is copied as it lies there at a moment, without what had not been brought to it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MEGABYTES = 24


def _run(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[bool]:
    """A disk in memory at `place`; False, and a plain folder, where this user may mount none."""
    place.mkdir(parents=True, exist_ok=True)
    mounted = bool(shutil.which("mount")) and _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place)
    try:
        yield mounted
    finally:
        if mounted:
            _run("umount", place)


class Disk:
    """An ext4 disk in a file, mounted at `place`.

    Args:
        aside: folder for the file and its copies.
    """

    def __init__(self, aside: Path):
        self.image, self.copy = aside / "disk.img", aside / "cut.img"
        self.place, self.after = aside / "disk", aside / "after_the_cut"

    @contextmanager
    def mounted(self) -> Iterator[bool]:
        """The disk is there; False where this user may not."""
        self.place.mkdir()
        self.after.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(_MEGABYTES << 20)
        there = (
            all(shutil.which(name) for name in ("mkfs.ext4", "mount"))
            and _run("mkfs.ext4", "-q", self.image)
            and _run("mount", "-o", "loop", self.image, self.place)
        )
        try:
            yield there
        finally:
            if there:
                _run("umount", self.place)

    @contextmanager
    def cut(self) -> Iterator[bool]:
        """What is on the disk now, at `after`; False where that is no file system."""
        _run("cp", "--sparse=always", self.image, self.copy)
        there = _run("mount", "-o", "loop", self.copy, self.after)
        try:
            yield there
        finally:
            if there:
                _run("umount", self.after)
