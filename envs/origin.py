"""Where a file or folder comes from: whether this user wrote it, by signatures with a key that only this user has.

Some of what is read back names code, or is code: Ray Tune's state, policies that look at features of one's own. It is
taken without a question where it bears this user's signature. A folder is signed for the place where it lies, so that a
signed one that somebody else changed and sent back is a stranger's.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from envs.errors import TrustError

MARK = ".origin"  # the file of a folder's signature
_KEY_BYTES = 32


def sign(text: str) -> str:
    """This user's signature of a text; "" where no key can be kept, which nobody's signature equals."""
    key = _key(_key_file())
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest() if key else ""


def is_signed(text: str, signature: object) -> bool:
    """Whether this user signed the text."""
    own = sign(text)
    return bool(own) and isinstance(signature, str) and hmac.compare_digest(own.encode(), signature.encode())


def sign_folder(folder: Path, place: str | None = None) -> None:
    """Sign a folder; without a key, or where it cannot be written into, it stays unsigned.

    Args:
        place: where what is signed lies; None: in the folder.
    """
    signature = sign(_place(folder, place))
    if signature:
        with suppress(OSError):
            (folder / MARK).unlink(missing_ok=True)  # it may be a link
            (folder / MARK).write_text(signature + "\n", encoding="utf-8")


def is_signed_folder(folder: Path, place: str | None = None) -> bool:
    """Whether this user signed the folder for the place where it, or what is signed, lies now."""
    try:
        return is_signed(_place(folder, place), (folder / MARK).read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return False


def refuse_links_out(folder: Path, paths: Iterable[Path] | None = None) -> None:
    """Raise TrustError where a link leads out of a folder: whoever made it would show or change other files.

    Args:
        folder: it may be a link itself.
        paths: what is looked at; None: all that lies in the folder.
    """
    root = os.path.realpath(folder)
    for path in _below(folder) if paths is None else paths:
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
            raise TrustError(
                f"{path} is a link that leads out of {folder}, to {os.path.realpath(path)}; a folder from elsewhere "
                "must not reach other files of this machine. Put the file itself there if it is meant."
            )


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        yield from (Path(place, name) for name in (*folders, *files))


def _place(folder: Path, place: str | None) -> str:
    return f"folder {place or os.path.realpath(folder)}"


def _key_file() -> Path | None:
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "rl-mba" / "key"
    except RuntimeError:  # nobody's home
        return None


@cache
def _key(file: Path | None) -> bytes | None:
    """The key in a file, made where there is none; None where that cannot be."""
    if file is None:
        return None
    aside = file.with_name(f"{file.name}-{secrets.token_hex(8)}")
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as stream:
                stream.write(secrets.token_bytes(_KEY_BYTES))
            with suppress(FileExistsError):  # another process was faster
                os.link(aside, file)
        key = file.read_bytes()
    except OSError:
        return None
    finally:
        with suppress(OSError):
            aside.unlink()
    return key if len(key) == _KEY_BYTES else None
