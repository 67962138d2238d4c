"""What a user may name in settings and on the command line: by a name of ours, or by `module:name` one of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from envs.errors import ConfigError, RLMBAError, TrustError, nearest

T = TypeVar("T")

TRUSTED = "RL_MBA_TRUSTED_MODULES"  # variable with modules that files may name, separated by commas

_named: set[str] = set()  # each module:name that was asked for, beside what files say
_reading: ContextVar[Path | None] = ContextVar("reading", default=None)  # the file whose names are not trusted


@contextmanager
def names_of(file: Path, trusted: bool) -> Iterator[None]:
    """Names in this block come from a file, which may be a stranger's: what is imported runs.

    Unless the file is trusted, `module:name` is imported only where this process was told the same name otherwise, in
    settings or on the command line, or where $RL_MBA_TRUSTED_MODULES names the module.
    """
    token = _reading.set(None if trusted else file)
    try:
        yield
    finally:
        _reading.reset(token)


class Registry(dict[str, T]):
    """Entries by name. `module:name` stands for what the module calls so, entered or not, in every process.

    To give something of your own a short name, enter it as in a dict. The entry is there in the process that does so
    alone; Ray's workers and somebody who reads a policy import what `module:name` says.

    Args:
        noun: what messages call an entry.
        needed: what an entry must be, for messages.
        fits: whether something is that.
        entries: the first ones; one that is a string is imported as such a name when it is asked for.
        error: what an unknown name raises.
    """

    def __init__(
        self,
        noun: str,
        needed: str,
        fits: Callable[[Any], bool],
        entries: Mapping[str, T],
        error: type[RLMBAError] = ConfigError,
    ):
        super().__init__(entries)
        self.noun, self.needed, self.fits, self.error = noun, needed, fits, error

    def find(self, name: str) -> Any:
        """The entry of this name, or what `module:name` says.

        Raises:
            RLMBAError: of the registry's kind, where there is none, or where it is no such thing.
        """
        found: object = self.get(name, name)
        if isinstance(found, str):
            found = self._imported(found)
        if not self.fits(found):
            raise self.error(f"The {self.noun} {name!r} is no {self.needed}.")
        return found

    def _imported(self, name: str) -> object:
        module, colon, attribute = name.partition(":")
        if not colon:
            plural = f"{self.noun[:-1]}ies" if self.noun.endswith("y") else f"{self.noun}s"
            raise self.error(
                f"Unknown {self.noun} {name!r}.{nearest(name, self)} {plural.capitalize()}: {', '.join(self)}; or "
                "module:name of your own."
            )
        if name not in self.values():  # an entry of ours that is imported when it is asked for
            self._check_trust(name, module)
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError, SyntaxError) as error:
            raise self.error(f"The {self.noun} {name!r} cannot be imported: {error}.") from error

    def _check_trust(self, name: str, module: str) -> None:
        file = _reading.get()
        if file is None:
            _named.add(name)
        elif name not in _named and module not in os.environ.get(TRUSTED, "").split(","):
            raise TrustError(
                f"{file} names the {self.noun} {name!r}, which runs the module {module!r}, and this user did not write "
                f"it. If you know what that module does, set {TRUSTED}={module} and try again."
            )
