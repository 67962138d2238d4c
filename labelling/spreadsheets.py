"""What spreadsheets do to a cell: numbers are rewritten, dates recognised, formulas run."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from envs.pools.classes import TRUTH

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?\d+(,\d+)+(\.\d+)?|[+-]?\d+(\.\d{3})+,\d+")  # 1,234 and, in half of the world, 1,5
_UNIT = re.compile(r"([$€£¥]\s?\d[\d.,]*|\d[\d.,]*\s?[%$€£¥]|\(\d[\d.,]*\))")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?|"
    r"dec(ember)?)"
)
_DATE = re.compile(
    rf"\d{{1,4}}([-/.])\d{{1,2}}(\1\d{{1,4}})?\.?|\d{{1,2}}[-/. ]*{_MONTH}([-/. ,]*\d{{1,4}})?|"
    rf"{_MONTH}[-/. ]*\d{{1,4}}([-/. ,]+\d{{1,4}})?"
)
_TIME = re.compile(r"\d{1,4}:\d{1,2}(:\d{1,2}([.,]\d+)?)?( ?[ap]m?)?")
_FORMULA = ("=", "+", "-", "@")
_STAYS = re.compile(r"0|-?[1-9]\d{0,10}")  # a whole number of more digits is shown, and saved, as 1.23E+11
_DIGITS = 15  # that a number keeps


class Reading(NamedTuple):
    """What a spreadsheet takes a cell for; what is equal in this may be written in the other's place."""

    kind: str  # number, date, time, word
    value: object


def changes(text: str) -> bool:
    """Whether a spreadsheet that opens a CSV file and saves it may write a cell in another way."""
    if _STAYS.fullmatch(text):
        return False
    if text.startswith(("'", *_FORMULA)) and not _NUMBER.fullmatch(text.casefold()):
        return True
    return read(text) is not None


def read(text: str) -> Reading | None:
    """What a spreadsheet takes a cell for; None: a text, which stays as it is."""
    low = text.casefold()
    if low[:1].isalpha() and low[:3] not in _MONTHS and low not in TRUTH:
        return None
    if _NUMBER.fullmatch(low):
        return Reading("number", _rounded(float(low), _DIGITS))
    if low in TRUTH:
        return Reading("word", TRUTH[low])
    if _DATE.fullmatch(low):
        return Reading("date", _day_and_month(low))
    if _TIME.fullmatch(low):
        return Reading("time", tuple(int(n) for n in re.findall(r"\d+", low)[:2]))
    if _GROUPED.fullmatch(low) or _UNIT.fullmatch(low):
        return Reading("number", "".join(c for c in low if c.isdigit()).lstrip("0"))
    return None


class Twins:
    """Ids that a spreadsheet may write in another way, found by what it may have written.

    Args:
        ids: of all samples.
    """

    def __init__(self, ids: Iterable[str]):
        self.changed = [sample for sample in ids if changes(sample)]
        self._by_reading: dict[tuple[str, object], list[str]] = defaultdict(list)
        for sample in self.changed:
            for reading in _readings(sample):
                self._by_reading[reading].append(sample)
        self._rounded: dict[int, dict[float, list[str]]] = {}  # significant digits -> number -> ids

    def of(self, written: str, is_id: bool = False) -> list[str]:
        """The ids, other than itself, that a spreadsheet may have written like this.

        Args:
            written: a cell.
            is_id: whether some sample is called so. Then what no spreadsheet writes has not been through one.
        """
        if not self.changed or (is_id and not _may_be_output(written)):
            return []
        found = {sample for reading in _readings(written) for sample in self._by_reading.get(reading, ())}
        if "e" in written.casefold() and (reading := read(written)) and isinstance(reading.value, float):
            found |= set(self._of_digits(_significant(written)).get(reading.value, ()))
        return sorted(found - {written})

    def _of_digits(self, digits: int) -> dict[float, list[str]]:
        """Ids that are numbers, by what is left of them in so many significant digits."""
        if digits not in self._rounded:
            index: dict[float, list[str]] = defaultdict(list)
            for (_, value), samples in self._by_reading.items():
                if isinstance(value, float):
                    index[_rounded(value, digits)] += samples
            self._rounded[digits] = index
        return self._rounded[digits]


def guarded(text: str) -> str:
    """A text as a spreadsheet shows it without running it: what looks like a formula begins with an apostrophe."""
    runs = text.startswith((*_FORMULA, "\t", "\r")) and not _NUMBER.fullmatch(text.casefold())
    return f"'{text}" if runs else text


def unguarded(text: str) -> str:
    """The text that was `guarded`."""
    return text[1:] if text.startswith("'") and guarded(text[1:]) == text else text


def same_letters(text: str) -> str:
    """A form that is equal for texts which look the same: composed letters, plain blanks."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _readings(text: str) -> list[tuple[str, object]]:
    """`read`, and what some spreadsheets or languages make of it besides: 1.2 is a number here and a day there."""
    reading = read(text)
    if reading is None:
        return []
    readings: list[tuple[str, object]] = [(reading.kind, reading.value)]
    low = text.casefold()
    if reading.kind == "number" and "." in low:  # 1.2 is a day in half of the world, and 1,2 there
        readings += [("date", _day_and_month(low))] if _DATE.fullmatch(low) else []
        readings.append(("number", low.replace(".", "").lstrip("0")))
    if reading.kind == "number" and isinstance(reading.value, str):
        sign = "-" if low.startswith(("-", "(")) else ""
        for number in (re.sub(r"[^\d.]", "", low), re.sub(r"[^\d,]", "", low).replace(",", ".")):
            with suppress(ValueError):
                readings.append(("number", _rounded(float(sign + number), _DIGITS)))
    return readings


def _may_be_output(text: str) -> bool:
    """Whether a spreadsheet writes a number or a word like this; it never writes 03, +3, 3E9, nor a sixteenth digit."""
    if text.casefold() in TRUTH:
        return text == text.upper()
    if not re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?|-?\d(\.\d+)?E[+-]\d+", text):
        return False
    digits = "".join(c for c in text.partition("E")[0] if c.isdigit()).lstrip("0")
    return not digits[_DIGITS:].strip("0")


def _day_and_month(low: str) -> frozenset[int]:
    """The day and the month that a date names, in whatever order; years are left out."""
    named = [_MONTHS.index(m) + 1 for m in re.findall("|".join(_MONTHS), low)]
    return frozenset([*named, *(n for n in map(int, re.findall(r"\d+", low)) if n <= 31)][:2])


def _significant(text: str) -> int:
    """Significant digits of a number as it is written."""
    return max(1, len("".join(c for c in text.casefold().partition("e")[0] if c.isdigit()).lstrip("0")))


def _rounded(value: float, digits: int) -> float:
    """A number to so many significant digits; cut off, not rounded, at those that a spreadsheet keeps."""
    if not math.isfinite(value) or (digits >= _DIGITS and abs(value) < 10**_DIGITS and value.is_integer()):
        return value
    if digits >= _DIGITS:
        mantissa, _, exponent = f"{value:.16e}".partition("e")
        return float(f"{mantissa[: _DIGITS + 1 + mantissa.startswith('-')]}e{exponent}")
    return float(f"{value:.{digits - 1}e}")
