"""Errors that a user can cause. The command line prints each of them as one line."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

_LONGEST = 2000  # characters of a message
_SHOWN = 80  # characters of a value that a message quotes


class RLMBAError(Exception):
    """Base of every error that a user can cause; its text says what to do about it.

    A text that quotes a long value is shown without its middle.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 500]} [...] {text[-400:]}"


class DataError(RLMBAError):
    """A data set is missing, broken, inconsistent or too small."""


class ConfigError(RLMBAError):
    """A setting has an unknown name or a value outside its range."""


class PolicyError(RLMBAError):
    """A policy file or checkpoint is missing, broken or does not fit."""


class TrustError(RLMBAError):
    """A file or folder that this user did not write would run code, or reach other files of the machine."""


class StrategyError(RLMBAError):
    """A selection strategy is unknown or returned something that is not a valid batch."""


class ContractError(RLMBAError):
    """An environment or a task model breaks the contract that others rely on."""


def nearest(name: object, valid: Iterable[object]) -> str:
    """Return ``" Did you mean 'x'?"`` for the valid name closest to `name`, or ``""``.

    Case is ignored. Meant to be appended to the text of an error about an unknown name.
    """
    by_lower = {str(option).lower(): str(option) for option in valid}
    close = difflib.get_close_matches(str(name)[:_SHOWN].lower(), by_lower, n=1)
    return f" Did you mean '{by_lower[close[0]]}'?" if close else ""


class _Short(reprlib.Repr):
    """`repr` without ever writing out more of a value than is shown, whatever it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxother = 3, _SHOWN

    def repr_str(self, text: str, level: int) -> str:
        return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")

    def repr_int(self, number: int, level: int) -> str:
        return repr(number) if number.bit_length() < 250 else f"a number of {number.bit_length() // 3:,} digits"


def shorten(value: object) -> str:
    """A value as messages quote it: texts in quotes, and no more of it than one line has room for."""
    text = _Short().repr(value)
    return text if isinstance(value, str) or len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def shown(value: object) -> str:
    """What a table holds as messages quote it: as a text, whatever the column's type."""
    return shorten(str(value))
