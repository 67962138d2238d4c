"""Errors that a user can cause. The command line prints each of them as one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RLMBAError(Exception):
    """Base of every error that a user can cause; its text says what to do about it."""


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
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    return f" Did you mean '{by_lower[close[0]]}'?" if close else ""
