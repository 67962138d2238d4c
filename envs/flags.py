"""Flags of the command line that take their help and default from the field of the settings that they set."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any

from envs.errors import ConfigError
from envs.fields import Declaration, declarations
from envs.names import is_storable


@dataclass(frozen=True)
class FieldFlag:
    """A flag beside the field that it sets."""

    action: argparse.Action
    path: str  # as in a settings file: resources.num_env_runners
    words: str | None  # in place of the field's own help


class CommandParser(argparse.ArgumentParser):
    """A parser of a command whose flags set fields of dataclasses.

    The classes of settings import torch, so they are opened only when somebody asks for the command's help; a mistake
    in a flag is answered at once. That is why a flag names its type.

    Args:
        settings: opens the dataclass that `add_field` refers to.
    """

    def __init__(self, settings: Callable[[], type] | None = None, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self.settings = settings
        self.field_flags: list[FieldFlag] = []

    def add_field(self, flag: str, path: str | None = None, words: str | None = None, **options: Any) -> None:
        """Add a flag that sets a field: the one of its name, or the one at the path; None where it is not given."""
        action = self.add_argument(flag, **options)
        self.field_flags.append(FieldFlag(action, path or action.dest, words))

    def add_settings(self, file: str, example: str) -> None:
        """Add --config and --set."""
        self.add_argument("--config", metavar="FILE", help=file)
        self.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help=f"one setting, as in {example}; repeatable"
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As that of argparse; a flag that is given twice or without a value is a mistake, not the last or no value."""
        self._refuse_unused(sys.argv[1:] if args is None else list(args))
        return super().parse_known_args(args, namespace)

    def _refuse_unused(self, words: list[str]) -> None:
        single = {flag: a for a in self._actions for flag in a.option_strings if a.nargs != 0 and not _repeats(a)}
        given: dict[int, str] = {}  # by the action, for one may have several flags
        before = ""
        for word in words:
            flag, equals, value = word.partition("=")
            flag = flag if flag.startswith("-") else ""
            if not word.strip() or (flag and equals and not value.strip()):
                named = flag or before or "an argument"
                self.error(f"{named} is empty; give it a value, or leave it out (is a variable of the shell unset?)")
            if not is_storable(word):
                self.error(f"{word!r} is no UTF-8, or holds half a character; rename what it names")
            if flag in single:
                if id(single[flag]) in given:
                    self.error(f"{flag} is given twice; give it once")
                given[id(single[flag])] = flag
            before = flag

    def format_help(self) -> str:
        """The help, that of fields included."""
        for flag in self.field_flags:
            assert self.settings is not None
            declaration, default = field_at(self.settings(), flag.path)
            flag.action.help = _help(declaration, default, flag.words).replace("%", "%%")
        return super().format_help()


def field_at(section: type, path: str) -> tuple[Declaration, Any]:
    """Declaration and default of a field of a dataclass or of one inside it, named as in a settings file."""
    *sections, name = path.split(".")
    for part in sections:
        section = declarations(section)[part].kind
    found = next(field for field in fields(section) if field.name == name)
    default = found.default if found.default_factory is MISSING else found.default_factory()
    return declarations(section)[name], None if default is MISSING else default


def _repeats(action: argparse.Action) -> bool:
    return action.default == []  # what `action="append"` begins with, here and throughout


def split_list(text: str | None) -> tuple[str, ...]:
    """The entries between commas; quotes hold one with a comma together, as in '"a, b.npz",c'. None: there are none.

    Raises:
        ConfigError: where an entry is empty.
    """
    if text is None:
        return ()
    try:
        (parts,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise ConfigError(f"{text!r} cannot be read as a list; write A,B, and '\"A, or B\",C' for a comma.") from None
    entries = tuple(part.strip() for part in parts)
    if not all(entries):
        raise ConfigError(f"{text!r} has an empty entry; write A,B (is a variable of the shell unset?).")
    return entries


def given(**flags: Any) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


def _help(declaration: Declaration, default: Any, words: str | None) -> str:
    said = words or declaration.help
    if declaration.names:
        said += f": {', '.join(declaration.names)}"
    shown = ",".join(default) if isinstance(default, tuple) else default
    if isinstance(shown, float):
        shown = f"{shown:g}"
    return said if shown in ("", None) else f"{said} ({shown})"
