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
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from envs.errors import ConfigError, nearest, shorten

T = TypeVar("T", bound="Section")


@dataclass(frozen=True)
class OneOf:
    """The names that a field may hold, the keys of a registry for instance."""

    names: Iterable[str]


@dataclass(frozen=True)
class Finite:
    """Mark of a number that may not be infinite; none may be NaN."""


@dataclass(frozen=True)
class ReadAs:
    """Mark of a field that takes other dataclasses, too; mappings, files and flags make this section for it."""

    section: type[Section]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        def read(value: Any, make: Callable[[Any], Any]) -> Any:
            return make(value) if isinstance(value, Mapping) else value

        return core_schema.no_info_wrap_validator_function(read, handler(self.section))


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
        if get_origin(self.kind) is tuple:
            return self._refused_list(value)
        if isinstance(self.kind, type) and is_dataclass(self.kind) and not self.holds_section(value):
            return f"; it must be a {self.kind.__name__}{' or another dataclass' if self._takes_others else ''}."
        return ""

    def holds_section(self, value: object) -> bool:
        """Whether a value is what the field holds where that is a section, rather than something to make it of."""
        if self._takes_others:
            return is_dataclass(value) and not isinstance(value, type)
        return isinstance(value, self.kind)

    @property
    def _takes_others(self) -> bool:
        return any(isinstance(mark, ReadAs) for mark in self.marks)

    def _refused_list(self, value: object) -> str:
        entry = get_args(self.kind)[0]
        if type(value) is entry:
            return f"; it must be a list: write {[value]}."
        if isinstance(value, str):
            return f"; it must be a list: write [{value}]."
        if not isinstance(value, list | tuple):
            return "; it must be a list."
        wrong = next((x for x in value if not isinstance(x, str)), None) if entry is str else None
        return "" if wrong is None else f"; {wrong!r} in it is no text: write {str(wrong)!r}."

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


def build(cls: type[T], settings: Mapping[str, Any]) -> T:
    """A section from a nested mapping: what files, flags and callers in Python say goes through the same checks.

    Args:
        settings: by name of the field. Sections inside are mappings, too, or were made already.

    Raises:
        ConfigError: at an unknown key (with the nearest valid one) or a value of the wrong type, by its full name.
    """
    from pydantic import TypeAdapter, ValidationError  # late: who only reads declarations need not wait for it

    _refuse_unknown(cls, settings, "")
    try:
        return TypeAdapter(cls).validate_python(_rejoined(cls, settings))
    except ValidationError as error:
        first = error.errors()[0]
        value = first["input"]
        _refuse_declared(cls, first["loc"], value)
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where} is {value!r}: {first['msg'].lower()}.") from None


def _rejoined(cls: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with names whole where a field gives numbers to names: `--set` and sweeps divide them at dots."""
    joined = dict(settings)
    for key, value in settings.items():
        kind: type = declarations(cls)[key].kind
        if is_dataclass(kind) and isinstance(value, Mapping):
            joined[key] = _rejoined(kind, value)
        elif get_args(kind) == (str, float) and isinstance(value, Mapping):
            joined[key] = flat(value)
    return joined


def _refuse_declared(cls: type[Section], path: tuple[int | str, ...], value: object) -> None:
    """Raise ConfigError in the words of the field at that path, where its declaration has some for the value."""
    *sections, name = (str(part) for part in path)
    for section in sections:
        cls = declarations(cls)[section].kind
        if not is_dataclass(cls):
            return  # the path goes on inside of a value
    refuse(cls, name, value)


def _refuse_unknown(cls: type[Section], settings: Any, prefix: str) -> None:
    if not isinstance(settings, Mapping):
        name = prefix.rstrip(".") or "The settings"
        raise ConfigError(f"{name} must be a mapping of names to values, not {settings!r}.")
    known = declarations(cls)
    for key, value in settings.items():
        if key not in known:
            raise ConfigError(f"Unknown setting '{prefix}{key}'.{nearest(key, known)} Valid here: {', '.join(known)}.")
        if is_dataclass(known[key].kind):
            if not known[key].holds_section(value):
                _refuse_unknown(known[key].kind, value, f"{prefix}{key}.")
        elif isinstance(value, bool):
            refuse(cls, key, value)  # pydantic would take true for 1
        else:
            _refuse_truth_inside(known[key].kind, value, f"{prefix}{key}")


def _refuse_truth_inside(kind: Any, value: Any, where: str) -> None:
    """Raise ConfigError where a list or mapping of numbers or texts holds true or false."""
    parts = get_args(kind)
    if not isinstance(value, list | tuple | Mapping) or not parts:
        return
    inner = [part for part in parts if part is not Ellipsis][-1]
    for name, part in flat(value, lists=True).items() if isinstance(value, Mapping) else enumerate(value):
        if isinstance(part, bool) and inner in (int, float, str):
            raise ConfigError(f"{where}.{name} is {part}; it must be {'a text' if inner is str else 'a number'}.")
