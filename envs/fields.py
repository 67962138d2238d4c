"""Settings as sections of typed fields: what a field may hold stands beside it, and one place words the refusal.

@dataclass(frozen=True)
class ProtocolConfig(Section, prefix="protocol."):
    rounds: Annotated[int, Ge(1)] = 10  # T
    amcb_floor: Annotated[float, Ge(0), Lt(1)] = 0.05

ProtocolConfig(rounds=0)  # ConfigError: protocol.rounds is 0; it must be at least 1.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from envs.errors import ConfigError, nearest, shorten


@dataclass(frozen=True)
class OneOf:
    """The names that a field may hold, the keys of a registry for instance."""

    names: Iterable[str]


@dataclass(frozen=True)
class Finite:
    """Mark of a number that may not be infinite; none may be NaN."""


@dataclass(frozen=True)
class ReadAs:
    """Mark of a field that takes other objects, too; files and flags of settings make this section for it."""

    section: type[Section]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        return handler(self.section)


@dataclass(frozen=True)
class Help:
    """What a flag that sets the field says about it."""

    text: str


class Section:
    """Base of the dataclasses of settings; making one refuses values that its fields may not hold.

    A subclass names what its fields' names begin with in messages: `class ProtocolConfig(Section, prefix="protocol.")`.

    Raises:
        ConfigError: naming the field, its value and what is allowed.
    """

    prefix: ClassVar[str] = ""

    def __init_subclass__(cls, prefix: str | None = None) -> None:
        super().__init_subclass__()
        if prefix is not None:  # else that of the section that it extends
            cls.prefix = prefix

    def __post_init__(self) -> None:
        for name in declarations(type(self)):
            refuse(type(self), name, getattr(self, name))


@dataclass(frozen=True)
class Declaration:
    """What a field's annotation says."""

    kind: Any  # its type, without None and marks
    optional: bool
    marks: tuple[Any, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its `OneOf`; none where it has none."""
        return next((tuple(mark.names) for mark in self.marks if isinstance(mark, OneOf)), ())

    @property
    def help(self) -> str:
        """Text of the field's `Help`."""
        return next((mark.text for mark in self.marks if isinstance(mark, Help)), "")

    def refusal(self, value: object) -> str:
        """The end of a sentence that begins with the field and its value; empty where it may hold the value."""
        if value is None and self.optional:
            return ""
        if self.names and value not in self.names:
            return f".{nearest(value, self.names)} It must be one of {', '.join(self.names)}."
        if self.kind is int or self.kind is float:
            return self._refused_number(value)
        return ""

    def _refused_number(self, value: object) -> str:
        numbers, noun = (Integral, "a whole number") if self.kind is int else (Real, "a number")
        allowed = _allowed(self.marks)
        if isinstance(value, bool) or not isinstance(value, numbers):
            return f"; it must be {noun}{allowed and ', '}{allowed}."
        if isinstance(value, int) and value.bit_length() > 63:
            return "; a number has at most 18 digits here."
        if value == value and all(_holds(mark, value) for mark in self.marks):
            return ""
        return "; it cannot be negative." if allowed == "at least 0" else f"; it must be {allowed or noun}."


def refuse(section: type[Section], name: str, value: object) -> None:
    """Raise ConfigError where this field of a section may not hold the value."""
    refusal = declarations(section)[name].refusal(value)
    if refusal:
        raise ConfigError(f"{section.prefix}{name} is {shorten(value)}{refusal}")


def declarations(section: type) -> Mapping[str, Declaration]:
    """The declaration of each field of a dataclass."""
    return _declarations(section)


@cache
def _declarations(section: type) -> Mapping[str, Declaration]:
    hints = get_type_hints(section, include_extras=True)
    return {field.name: _declaration(hints[field.name]) for field in fields(section)}


def _declaration(hint: Any) -> Declaration:
    optional = False
    marks: tuple[Any, ...] = ()
    while True:
        if get_origin(hint) is Annotated:
            hint, *more = get_args(hint)
            marks += tuple(more)
        elif get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint):
            optional = True
            hint = Union[tuple(arg for arg in get_args(hint) if arg is not type(None))]  # noqa: UP007
        else:
            return Declaration(_read_as(marks, hint), optional, marks)


def _read_as(marks: tuple[Any, ...], hint: Any) -> Any:
    return next((mark.section for mark in marks if isinstance(mark, ReadAs)), hint)


def _holds(mark: object, value: Any) -> bool:
    match mark:
        case Ge(bound):
            return value >= bound
        case Gt(bound):
            return value > bound
        case Le(bound):
            return value <= bound
        case Lt(bound):
            return value < bound
        case Finite():
            return isinstance(value, Integral) or math.isfinite(value)
    return True


def _allowed(marks: tuple[Any, ...]) -> str:
    """The numbers that these marks allow, in words: "at least 1", "above 0 and finite", "in [0, 1)"."""
    low = high = ""
    for mark in marks:
        match mark:
            case Ge(bound):
                low, words = f"[{bound}", f"at least {bound}"
            case Gt(bound):
                low, words = f"({bound}", f"above {bound}"
            case Le(bound):
                high, words = f"{bound}]", f"at most {bound}"
            case Lt(bound):
                high, words = f"{bound})", f"below {bound}"
    if low and high:
        return f"in {low}, {high}"
    finite = any(isinstance(mark, Finite) for mark in marks)
    if low or high:
        return f"{words} and finite" if finite else words
    return "a finite number" if finite else ""


def flat(nested: Any, lists: bool = False, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; with `lists`, what lists hold by its position."""
    if lists and isinstance(nested, list):
        nested = dict(enumerate(nested))
    if not isinstance(nested, Mapping):
        return {prefix: nested}
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= flat(value, lists, f"{prefix}.{key}" if prefix else str(key))
    return found
