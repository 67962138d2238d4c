"""Files and folders: whole or not at all, whatever fails and whoever else writes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from envs.errors import DataError
from envs.files import UNFINISHED, data_errors, new_file, new_folder, remove_unfinished, write_text


def below(folder: Path) -> dict[str, str | None]:
    """Everything in a folder, hidden files too: the content of files, None for folders."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else None for path in folder.rglob("*")
    }


def fill(folder: Path, text: str) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "one").write_text(text)
    (folder / "two").write_text(text)


def of(text: str) -> dict[str, str | None]:
    """What `fill` leaves."""
    return {"deep": None, "deep/one": text, "two": text}


def is_ours(folder: Path) -> bool:
    return (folder / "two").is_file()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def full(*_) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Files


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "a.txt"
    with new_file(file) as aside:
        assert aside.suffix == ".txt"  # some writers tell the format by it
        assert aside.parent == file.parent and aside.name.startswith(UNFINISHED)
        aside.write_text("first")
        assert not file.exists()
    with new_file(file) as again:
        assert again != aside
        again.write_text("second")
        assert file.read_text() == "first"
    assert below(tmp_path / "new") == {"folder": None, "folder/a.txt": "second"}


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "ä\r\nb\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa4\r\nb\n"


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize(
    ("step", "older"),
    [(step, older) for step in ("write", "chmod", "fsync", "replace") for older in (False, True)],
)
def test_a_file_that_fails_leaves_the_older_one(
    failure: BaseException, step: str, older: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if older:
        (tmp_path / "a").write_text("older")

    def fail(*_) -> None:
        raise failure

    if step != "write":
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(failure)), new_file(tmp_path / "a") as aside:
        aside.write_text("half")
        if step == "write":
            fail()
    assert below(tmp_path) == ({"a": "older"} if older else {})


def test_errors_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=f"Cannot write {tmp_path}/folder: Is a directory"):
        write_text(tmp_path / "folder", "text")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match=r"Cannot write .*/file/a: "):
        write_text(tmp_path / "file" / "a", "text")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=f"Cannot write {tmp_path}/b: No space left on device"):
        write_text(tmp_path / "b", "text")
    assert below(tmp_path) == {"folder": None, "file": "mine"}


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(DataError, match=r"Cannot write .*Permission denied"):
        write_text(tmp_path / "a", "text")
    with pytest.raises(PermissionError), new_folder(tmp_path / "b"):
        pass
    tmp_path.chmod(0o755)
    assert below(tmp_path) == {}


def test_permissions_are_those_of_any_new_file_or_of_the_older_one(tmp_path: Path, umask: None) -> None:
    write_text(tmp_path / "a", "first")
    with new_folder(tmp_path / "b") as new:
        fill(new, "first")
    assert mode(tmp_path / "a") == 0o640 and mode(tmp_path / "b") == 0o750 and mode(tmp_path / "b" / "two") == 0o640
    (tmp_path / "a").chmod(0o604)
    (tmp_path / "b").chmod(0o705)
    write_text(tmp_path / "a", "second")
    with new_folder(tmp_path / "b", is_ours) as new:
        fill(new, "second")
    assert mode(tmp_path / "a") == 0o604 and mode(tmp_path / "b") == 0o705
    assert (tmp_path / "a").read_text() == "second" and below(tmp_path / "b") == of("second")


def test_permissions_do_not_depend_on_the_writer(tmp_path: Path, umask: None) -> None:
    """safetensors puts a file of its own in the place of the one that it is given."""
    with new_file(tmp_path / "a") as aside:
        (tmp_path / "own").write_text("text")
        (tmp_path / "own").chmod(0o600)
        os.replace(tmp_path / "own", aside)
    assert mode(tmp_path / "a") == 0o640


def test_a_link_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "disk" / "a")  # to nothing yet
    for text in ("first", "second"):
        write_text(tmp_path / "a", text)
        assert (tmp_path / "a").is_symlink() and below(tmp_path / "disk") == {"a": text}
    (tmp_path / "disk" / "b").mkdir()
    (tmp_path / "b").symlink_to("disk/b")
    for text in ("first", "second"):
        with new_folder(tmp_path / "b", is_ours) as new:
            fill(new, text)
        assert (tmp_path / "b").is_symlink() and below(tmp_path / "disk" / "b") == of(text)


def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is brought to the disk, and of what takes its place, in order."""
    names: list[str] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def note_sync(handle: int) -> None:
        names.append(f"sync {Path(os.readlink(f'/proc/self/fd/{handle}')).name}")
        fsync(handle)

    def note(move: Callable[..., None]) -> Callable[..., None]:
        return lambda old, new: (names.append(f"move to {Path(new).name}"), move(old, new))

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note(replace))
    monkeypatch.setattr(os, "rename", note(rename))
    return names


def test_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = synced(monkeypatch)
    with new_file(tmp_path / "a") as aside:
        pass
    assert names == [f"sync {aside.name}", "move to a", f"sync {tmp_path.name}"]
    names.clear()
    with new_file(tmp_path / "a", durable=False):
        pass
    assert names == ["move to a"]
    names.clear()
    with new_folder(tmp_path / "b") as new:
        fill(new, "text")
    assert sorted(names[:-2]) == ["sync deep", "sync new", "sync one", "sync two"]
    assert names[-2:] == ["move to b", f"sync {tmp_path.name}"]


def test_folders_made_for_it_are_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = synced(monkeypatch)
    write_text(tmp_path / "new" / "newer" / "a", "text")
    assert sorted(names[:2]) == sorted(["sync new", f"sync {tmp_path.name}"]) and names[-1] == "sync newer"
    names.clear()
    with new_folder(tmp_path / "other" / "b"):
        pass
    assert names[0] == f"sync {tmp_path.name}" and names[-2:] == ["move to b", "sync other"]


def test_file_systems_that_bring_no_folder_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    write_text(tmp_path / "a", "text")
    with new_folder(tmp_path / "b") as new:
        fill(new, "text")
    assert (tmp_path / "a").read_text() == "text" and below(tmp_path / "b") == of("text")


# Folders


def test_a_folder_takes_its_place_at_the_end(tmp_path: Path) -> None:
    with new_folder(tmp_path / "new" / "a") as new:
        assert new.is_absolute() and not any(new.iterdir())
        fill(new, "text")
        assert not (tmp_path / "new" / "a").exists()
    assert os.listdir(tmp_path / "new") == ["a"] and below(tmp_path / "new" / "a") == of("text")


def test_an_empty_folder_gives_way(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with new_folder(tmp_path / "a") as new:
        fill(new, "text")
    assert os.listdir(tmp_path) == ["a"] and below(tmp_path / "a") == of("text")


def make_file(path: Path) -> None:
    path.write_text("mine")


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "chapter1").write_text("mine")


@pytest.mark.parametrize("thing", [make_file, make_folder])
@pytest.mark.parametrize("meanwhile", [False, True])
@pytest.mark.parametrize("given", [{}, {"may_replace": is_ours}])
def test_what_others_made_stays(thing: Callable[[Path], None], meanwhile: bool, given: dict, tmp_path: Path) -> None:
    if not meanwhile:
        thing(tmp_path / "a")
    with pytest.raises(FileExistsError) as error, new_folder(tmp_path / "a", **given) as new:
        assert meanwhile  # what is there from the start costs no work
        fill(new, "text")
        thing(tmp_path / "a")
    assert error.value.filename == str(tmp_path / "a")
    assert "mine" in below(tmp_path).values() and len(os.listdir(tmp_path)) == 1


def test_what_others_put_there_at_the_last_moment_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the question whether it may go and its going."""
    with new_folder(tmp_path / "a") as new:
        fill(new, "older")
    rename = os.rename

    def late(old: Path, new: Path) -> None:
        if Path(new).name == "old":
            monkeypatch.undo()
            shutil.rmtree(old)
            make_folder(Path(old))
        rename(old, new)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(FileExistsError), new_folder(tmp_path / "a", is_ours) as new:
        fill(new, "text")
    assert below(tmp_path) == {"a": None, "a/chapter1": "mine"}


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize(
    ("step", "older"),
    [
        *((step, older) for step in ("write", "fsync", "rename at once") for older in (False, True)),
        *((step, True) for step in ("rename away", "rename after it")),
    ],
)
def test_a_folder_that_fails_leaves_the_older_one(
    failure: BaseException, step: str, older: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if older:
        with new_folder(tmp_path / "a") as new:
            fill(new, "older")
    rename, number = os.rename, 0

    def fail(*_) -> None:
        raise failure

    def fail_at(old: Path, new: Path) -> None:
        nonlocal number
        number += 1
        if number == {"rename at once": 1, "rename away": 2, "rename after it": 3}[step]:
            fail()
        rename(old, new)

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif step.startswith("rename"):
        monkeypatch.setattr(os, "rename", fail_at)
    with pytest.raises(type(failure)), new_folder(tmp_path / "a", is_ours) as new:
        fill(new, "text")
        if step == "write":
            fail()
    assert os.listdir(tmp_path) == (["a"] if older else [])
    if older:
        assert below(tmp_path / "a") == of("older")


def test_a_folder_that_cannot_be_put_back_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with new_folder(tmp_path / "a") as new:
        fill(new, "older")
    rename = os.rename

    def late(old: Path, new: Path) -> None:
        if Path(new).name != "old" and not (tmp_path / "a").exists():
            full()
        rename(old, new)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(OSError, match="No space left"), new_folder(tmp_path / "a", is_ours) as new:
        fill(new, "text")
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith(UNFINISHED) and below(aside / "old") == of("older")


@pytest.mark.parametrize(("taken", "words"), [("a is taken.", "a is taken."), ("", "Cannot write {}/a: File exists.")])
def test_errors_of_folders_as_data_errors(taken: str, words: str, tmp_path: Path) -> None:
    make_folder(tmp_path / "a")

    def write(fail: Callable[[], None]) -> None:
        with data_errors(tmp_path / "a", taken), new_folder(tmp_path / "a", is_ours):
            fail()

    with pytest.raises(DataError) as error:
        write(lambda: None)
    assert str(error.value) == words.format(tmp_path)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(DataError) as error:
        write(full)
    assert str(error.value) == f"Cannot write {tmp_path}/a: No space left on device."


def test_leftovers_can_be_removed(tmp_path: Path) -> None:
    make_folder(tmp_path / f"{UNFINISHED}1")
    make_file(tmp_path / f"{UNFINISHED}2")
    make_file(tmp_path / "mine")
    remove_unfinished(tmp_path)
    assert below(tmp_path) == {"mine": "mine"}
    remove_unfinished(tmp_path / "nowhere")
