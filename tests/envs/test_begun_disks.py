"""A folder that is the beginning of a disk is filled in place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from envs.files import new_folder


def begins_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that can be filled and not renamed, as where a disk begins; with what an empty disk has."""
    rename = os.rename

    def busy(source: str | Path, target: str | Path) -> None:
        if folder in (Path(source), Path(target)):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rename(source, target)

    folder.mkdir()
    (folder / "lost+found").mkdir()
    monkeypatch.setattr(os, "rename", busy)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == folder)
    return folder


def test_a_disk_that_begins_here_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = begins_at(tmp_path / "disk", monkeypatch)
    for text in ("first", "second"):
        with new_folder(disk, lambda path: (path / "mark.json").is_file()) as new:
            (new / "a").mkdir()
            (new / "a" / "x").write_text(text)
            (new / "mark.json").write_text(text)
        assert sorted(os.listdir(disk)) == ["a", "lost+found", "mark.json"]
        assert (disk / "a" / "x").read_text() == (disk / "mark.json").read_text() == text
    with pytest.raises(FileExistsError), new_folder(disk):
        pass
    assert os.listdir(tmp_path) == ["disk"]


def test_a_disk_that_cannot_be_filled_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = begins_at(tmp_path / "disk", monkeypatch)
    (disk / "mark.json").write_text("old")
    rename = os.rename

    def full(source: str | Path, target: str | Path) -> None:
        if Path(target) == disk / "z":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="No space left"), new_folder(disk, lambda _: True) as new:
        (new / "a").mkdir()
        (new / "z").write_text("new")
    assert sorted(os.listdir(disk)) == ["lost+found", "mark.json"] and (disk / "mark.json").read_text() == "old"
