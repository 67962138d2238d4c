"""What a user may name in settings and on the command line: by a name of ours, or by `module:name` one of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from envs.errors import ConfigError, RLMBAError, nearest

T = TypeVar("T")


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
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError, SyntaxError) as error:
            raise self.error(f"The {self.noun} {name!r} cannot be imported: {error}.") from error
