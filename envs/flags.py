"""Flags of the command line that take their help and default from the field of the settings that they set."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any

from envs.fields import Declaration, declarations


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
