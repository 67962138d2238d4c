"""Files and folders that are there whole or not at all.

Both are written aside, under a hidden name that no other process meets, brought to the disk, and then renamed. Whoever
reads meanwhile finds the old content or the new one, also after a power cut; a failure leaves the old one and nothing
else. A process that is killed leaves what it wrote aside, under names that begin with UNFINISHED.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from envs.errors import DataError

UNFINISHED = ".unfinished-"
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
    target.parent.mkdir(parents=True, exist_ok=True)
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
    leaves the older folder under a hidden name, as `old`; a failure there puts it back.

    Args:
        folder: where it belongs: nothing, or an empty folder.
        may_replace: of something else that is at this path, whether it may go; asked at the beginning and, as much
            may appear meanwhile, at the end.

    Raises:
        FileExistsError: where something is there that must stay.
        OSError: where it cannot be written.
    """
    target = Path(os.path.realpath(folder))
    if _is_taken(target) and not may_replace(target):
        raise _exists(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f"{UNFINISHED}{secrets.token_hex(8)}"
    new, old = aside / "new", aside / "old"
    try:
        aside.mkdir(mode=0o700)
        new.mkdir()
        permissions = _permissions(target, new)
        yield new
        os.chmod(new, permissions)
        _sync_all(new)
        if not _take_place(new, target, old, may_replace):
            raise _exists(folder)
        _sync(target.parent)
    finally:
        # An older folder that could not be put back is worth more than a clean place.
        if os.path.lexists(target) or not os.path.lexists(old):
            shutil.rmtree(aside, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left in `folder`; the caller makes sure that nobody writes there now."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


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


def _is_taken(path: Path) -> bool:
    return os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir()))


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
