"""Files and folders that are there whole or not at all.

Both are written aside, under a hidden name that no other process meets, brought to the disk, and then renamed. Whoever
reads meanwhile finds the old content or the new one, also after a power cut; a failure leaves the old one and nothing
else. A process that is killed leaves what it wrote aside, under names that begin with UNFINISHED; of a folder, whoever
writes it next clears that away.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from envs.errors import DataError

UNFINISHED = ".unfinished-"
_LOCK = "lock"  # file in a hidden folder
AT_ONCE = 32  # files brought to the disk together: 2000 take 0.3 s so, and 15 s one after the other
_IN_THE_WAY = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_NO_SUCH_THING = (errno.EINVAL, errno.ENOTSUP)  # file systems that bring no folder to the disk


@contextmanager
def new_file(file: Path, *, durable: bool = True) -> Iterator[Path]:
    """A hidden empty file beside `file`, of the same suffix, to write; it replaces `file` at the end.

    Its folder is made where there is none. A link stays, and what it points to is replaced; so do the permissions of
    an older file. The last of several writers wins.

    Args:
        file: where it belongs.
        durable: whether it is on the disk at the end. Without, a power cut may leave an empty file: good enough for
            what is written often and can be had again.

    Raises:
        OSError: where it cannot be written.
    """
    target = Path(os.path.realpath(file))
    _make_folder(target.parent, durable)
    aside = target.parent / f"{UNFINISHED}{secrets.token_hex(8)}{target.suffix}"
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less the umask, as any new file
    permissions = _permissions(target, aside)
    try:
        yield aside
        os.chmod(aside, permissions)  # at the end: some writers put a file of their own there
        if durable:
            _sync(aside)
        os.replace(aside, target)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    if durable:
        _sync(target.parent)


def write_text(file: Path, text: str) -> None:
    """Replace `file` by `text` (UTF-8), on the disk when this returns.

    Raises:
        DataError: where it cannot be written.
    """
    with data_errors(file), new_file(file) as aside:
        aside.write_text(text, encoding="utf-8", newline="")


def _nothing(_: Path) -> bool:
    return False


@contextmanager
def new_folder(folder: Path, may_replace: Callable[[Path], bool] = _nothing) -> Iterator[Path]:
    """A hidden empty folder beside `folder` to fill, which takes its name, on the disk, at the end.

    A link stays, and what it points to is replaced. A process that is killed between the two renames of a replacement
    leaves the older folder under a hidden name, as `old`; a failure there puts it back. What killed processes left of
    this folder is removed: at the beginning, as it may fill the disk, an older folder among it at the end. A disk that
    begins at `folder` cannot be renamed: it is filled from a hidden folder in it, files that say what the folder is
    (.json) at the end.

    Args:
        folder: where it belongs: nothing, or an empty folder.
        may_replace: of something else that is at this path, whether it may go; asked at the beginning and, as much
            may appear meanwhile, at the end.

    Raises:
        FileExistsError: where something is there that must stay.
        OSError: where it cannot be written.
    """
    target = Path(os.path.realpath(folder))
    if is_taken(target) and not may_replace(target):
        raise _exists(folder)
    is_mount = _is_mount(target)
    place = target if is_mount else target.parent
    _make_folder(place, durable=True)
    _remove_left(place, target, superseded=False)
    aside, lock = _begin(place, target)
    new, old, taken = aside / "new", aside / "old", False
    try:
        new.mkdir()
        permissions = _permissions(target, new)
        yield new
        os.chmod(new, permissions)
        _sync_all(new)
        taken = (_fill if is_mount else _take_place)(new, target, old, may_replace)
        if not taken:
            raise _exists(folder)
        _sync(place)
    finally:
        # An older folder that could not be put back is worth more than a clean place.
        left = not taken and os.path.lexists(old) and (any(old.iterdir()) if is_mount else not os.path.lexists(target))
        if not left:
            shutil.rmtree(aside, ignore_errors=True)
        lock.release()
        if taken:
            _remove_left(place, target, superseded=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left in `folder`; the caller makes sure that nobody writes files there now."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if path.is_dir():
            _remove_aside(path, superseded=True)
        else:
            with suppress(OSError):
                path.unlink()


def _prefix(target: Path) -> str:
    """What the hidden names of one folder begin with, whatever it is called."""
    return f"{UNFINISHED}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}-"


def _begin(place: Path, target: Path) -> tuple[Path, FileLock]:
    """A hidden folder for `target`, and the lock that says for as long as its writer lives that it is at work."""
    while True:
        aside = place / f"{_prefix(target)}{secrets.token_hex(8)}"
        aside.mkdir(mode=0o700)
        lock = FileLock(aside / _LOCK)
        try:
            lock.acquire()
        except FileNotFoundError:  # cleared away between the two lines
            continue
        except (OSError, NotImplementedError):  # a file system without locks, on which nobody clears away
            return aside, lock
        if (aside / _LOCK).exists():
            return aside, lock
        lock.release()


def _remove_left(place: Path, target: Path, superseded: bool) -> None:
    """Remove what killed writers of `target` left in `place`.

    Args:
        superseded: whether an older folder may go, too, since a newer one has taken its place.
    """
    for aside in place.glob(f"{_prefix(target)}*"):
        _remove_aside(aside, superseded)


def _remove_aside(aside: Path, superseded: bool) -> None:
    lock = FileLock(aside / _LOCK)
    with suppress(Timeout, OSError, NotImplementedError):  # at work, gone, or not to be known
        lock.acquire(timeout=0)
        if superseded or not os.path.lexists(aside / "old"):
            shutil.rmtree(aside, ignore_errors=True)
    lock.release()


@contextmanager
def data_errors(place: Path, taken: str = "") -> Iterator[None]:
    """Turn errors of the operating system into a DataError that names `place`.

    Args:
        place: what is being written.
        taken: the message where something is there that must stay.
    """
    try:
        yield
    except OSError as error:
        if taken and isinstance(error, FileExistsError):
            raise DataError(taken) from None
        raise DataError(f"Cannot write {place}: {error.strerror or error}.") from None


def is_taken(path: Path) -> bool:
    """Whether there is something at `path`, other than an empty folder or an empty disk."""
    return os.path.lexists(path) and not (path.is_dir() and not _content(path))


def _content(folder: Path) -> list[Path]:
    """What is in a folder. Of one that cannot be renamed: without what a disk has of itself, and what is unfinished."""
    found = list(folder.iterdir())
    if not _is_mount(folder):
        return found
    return [path for path in found if path.name != "lost+found" and not path.name.startswith(UNFINISHED)]


def _is_mount(path: Path) -> bool:
    """Whether a disk, or a folder of another place, begins here; such a folder can be filled, but not renamed."""
    if not path.is_dir() or os.path.ismount(path):
        return path.is_dir()
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        there = str(path).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
        return any(there == line.split()[4] for line in mounts)
    return False


def _exists(folder: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))


def _take_place(new: Path, target: Path, old: Path, may_replace: Callable[[Path], bool]) -> bool:
    """Rename `new` to `target`, whose former content goes to `old`; False, and all as before, where it must stay."""
    try:
        os.rename(new, target)  # an empty folder gives way, anything else does not
        return True
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
    if not may_replace(target):
        return False
    try:
        os.rename(target, old)
        if not may_replace(old):  # put there by another process since the line before
            return False
        os.rename(new, target)
        return True
    finally:
        if os.path.lexists(old) and not os.path.lexists(target):
            os.rename(old, target)


def _fill(new: Path, target: Path, old: Path, may_replace: Callable[[Path], bool]) -> bool:
    """Move what is in `new` into `target`, whose former content goes to `old`; False as `_take_place`."""
    older = _content(target)
    if older and not may_replace(target):
        return False
    moved: list[tuple[Path, Path]] = []
    old.mkdir()
    entries = sorted(new.iterdir(), key=lambda path: (path.is_file(), path.suffix == ".json", path.name))
    try:
        for source, into in [*((path, old) for path in older), *((path, target) for path in entries)]:
            if os.path.lexists(into / source.name):
                raise _exists(into / source.name)
            os.rename(source, into / source.name)
            moved.append((source, into / source.name))
    except BaseException as error:
        for before, now in reversed(moved):
            os.rename(now, before)
        if isinstance(error, OSError) and error.errno in _IN_THE_WAY:
            return False
        raise
    return True


def _make_folder(folder: Path, durable: bool) -> None:
    """Make a folder, and those that it is in, where there are none; their names are on the disk, too."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if durable:
        for path in missing:
            _sync(path.parent)


def _permissions(older: Path, new: Path) -> int:
    return (older if older.exists() else new).stat().st_mode & 0o777


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in _NO_SUCH_THING):
            raise
    finally:
        os.close(handle)


def _sync_all(folder: Path) -> None:
    """Wait until all below a folder is on the disk."""
    folders, files = [], []
    for place, _, names in os.walk(folder):
        folders.append(Path(place))
        files += [path for name in names if not (path := Path(place, name)).is_symlink()]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for _ in threads.map(_sync, (*files, *folders)):
            pass
