"""Names of classes: one spelling for each, through whatever door it came, and a question where it is not certain.

`spelling` is what every door applies. `Vocabulary` decides which class a label means. It refuses, with what to write
instead, whatever looks like another spelling of a known class or like no class at all. What is meant all the same is
declared by whoever knows: `init --classes`, `tell --new-classes`, the `class_names` of a pool.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache

import numpy as np

from envs.errors import DataError, nearest, shown
from envs.pools.checks import LONGEST_NAME

_BLANKS = re.compile(r"[^\S\n\r\t\f\v\x1c-\x1f\x85\u2028\u2029]+")  # within a line
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
_NUMBER = re.compile(r"[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_BETWEEN_LETTERS = re.compile(r"(?<=[^\W\d_])[ _-]+(?=[^\W\d_])")
_JOINED = re.compile(r"\s*[#|;,/&+]\s*")
_JOINERS = ("\u200c", "\u200d")  # shape letters of some scripts and emoji: invisible, but not without effect
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # letters and marks that show nothing
_SELECTORS = frozenset(map(chr, range(0xFE00, 0xFE10)))  # which of two pictures a character has
_ALIKE = str.maketrans(
    "авекмнорстухіјѕβικνορτυχ‐‑‒–—―−‘’ʼ`´“”„«»",
    "abekmhopctyxijsbiknoptux-------'''''\"\"\"\"\"",
)  # lower case of letters that look like Latin ones in one case or the other; dashes, quotes
# What tables write for nothing, without the signs around it.
_NOTHING = frozenset((
    *("nan", "none", "null", "nil", "na", "n/a", "n.a", "nat", "#n/a", "#nv", "pd.na", "np.nan", "-1"),
    *("undefined", "missing", "unknown", "unlabeled", "unlabelled", "unannotated", "unassigned"),
    *("notlabeled", "notlabelled", "notannotated", "nolabel", "tolabel", "todo", "tbd"),
))  # fmt: skip
_SIGNS = re.compile(r"[-–—?._/\\*]+|#[A-ZÄÖÜ/0]+[!?]")  # signs alone, and the errors of a spreadsheet
# Truth values as spreadsheets of many languages write them, there in capitals.
_FALSE = "false falsch faux falso onwaar falskt fałsz ложь epätosi hamis yanlış nepravda"
_TRUE = "true wahr vrai verdadero verdadeiro vero waar sant prawda истина tosi igaz"
TRUTH = dict.fromkeys(_FALSE.split(), False) | dict.fromkeys(_TRUE.split(), True)
_MISREAD_UTF_8 = ("cp1252", "latin-1", "mac_roman", "cp850", "cp437", "cp1250", "cp1251", "gb18030", "shift_jis")
_MISREAD = (
    *(("cp1252", "utf-8"), ("cp1252", "mac_roman"), ("mac_roman", "cp1252"), ("cp1252", "cp850"), ("cp850", "cp1252")),
    *(("cp1251", "cp1252"), ("cp1251", "latin-1"), ("gb18030", "cp1252"), ("shift_jis", "cp1252")),
)  # saved in one encoding, read in the other; pairs that give words of one language for those of another are left out
_NAMED = 20  # classes that a message names


def spelling(value: object) -> str:
    """A class as it is spelled everywhere; "" for what stands for nothing: None, NaN, blanks.

    Letters are composed (NFC), blanks are plain and single, whole numbers have no fraction.

    Raises:
        DataError: where it is neither text, number nor truth value.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # pandas' own, which equal nothing
        return ""
    if isinstance(value, float | Decimal):
        if value != value:
            return ""
        value = str(int(value)) if value == value // 1 else str(value)
    if isinstance(value, bool | int):
        value = str(value)
    if not isinstance(value, str):
        raise DataError(f"class {shown(value)} is of type {type(value).__name__}; a class is a text or a number.")
    if value.isascii() and value.isalpha():
        return value
    text = unicodedata.normalize("NFC", value)
    text = " ".join(part for part in _BLANKS.split(text.strip()) if part)
    whole = _WHOLE.fullmatch(text)
    return text if whole is None else "0" if whole[1] == "-0" else whole[1]


def check_name(name: str) -> None:
    """Refuse a name that people cannot tell from another one, or that was damaged on its way.

    Raises:
        DataError: saying what to write.
    """
    if not name or not is_one_line(name):
        raise DataError(f"class {shown(name)}: a class needs a name in one line.")
    if len(name) > LONGEST_NAME:
        raise DataError(f"class {shown(name)} has {len(name):,} characters; at most {LONGEST_NAME} are possible.")
    _check_visible(name)
    if "\ufffd" in name or any(unicodedata.category(c) == "Cs" for c in name):
        raise DataError(f"class {shown(name)} holds characters that were lost in another encoding; write it anew.")
    meant = _repaired(name)
    if meant is not None:
        raise DataError(
            f"class {shown(name)} is {shown(meant)} in UTF-8, read in another encoding; write {shown(meant)}, and "
            "open and save tables as 'CSV UTF-8'."
        )


def is_one_line(name: str) -> bool:
    """Whether a name holds neither ends of lines nor other signs for machines."""
    return not any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name)


def _check_visible(name: str) -> None:
    for place, character in enumerate(name):
        if not _is_visible(name, place):
            called = unicodedata.name(character, "unnamed")
            raise DataError(
                f"class {shown(name)} holds an invisible character (U+{ord(character):04X}, {called}); write "
                f"{shown(visible(name))}."
            )


def visible(name: str) -> str:
    """A name without what nobody sees."""
    return spelling("".join(c for place, c in enumerate(name) if _is_visible(name, place)))


def look(name: str) -> str:
    """What names have in common that are likely to be one class: case, form, blanks, dashes, value of a number."""
    if _NUMBER.fullmatch(name):
        return str(float(name.replace(",", ".")))
    key = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    key = "".join(c for c in key if unicodedata.category(c) != "Cf" and c not in _FILLERS | _SELECTORS)
    key = _BETWEEN_LETTERS.sub(" ", key.translate(_ALIKE))
    return " ".join(key.split()).rstrip(".,;: ") or key


def truth(name: str) -> bool | None:
    """The truth value that a table or a spreadsheet of any language writes like this; None: it is none."""
    low = name.casefold()
    plain = name == name.upper() or low in ("true", "false")  # other languages' words in small letters may be classes
    return TRUTH.get(low) if plain else None


class Vocabulary:
    """The classes that are known, and which of them a label means.

    Args:
        known: names that are taken as they are, such as those of a journal.
        closed: whether other labels are refused.
        declare: how a class is declared, for messages.
        empty: what to do about a sample without a label, for messages.
        counts: how many labels each spelling has, where all of them are known beforehand.
    """

    def __init__(
        self,
        known: Iterable[str] = (),
        *,
        closed: bool = False,
        declare: str = "--new-classes",
        empty: str = "empty the cell",
        counts: Mapping[str, int] | None = None,
    ):
        self.names: list[str] = []
        self.read_as: dict[str, str] = {}  # labels that a spreadsheet wrote in its own way
        self._closed, self._declare, self._empty = closed, declare, empty
        self._counts = counts or {}
        self._expected = {look(text) for text in self._counts}
        self._means: dict[str, str] = {}
        self._like: dict[str, list[str]] = {}
        self._misread: dict[str, str] = {}  # what became of a name in another encoding -> the name
        self._several: list[str] = []  # undeclared names that may be several
        for name in known:
            self._add(name)

    def declare(self, name: object) -> str:
        """Add a class that somebody names as one, and return its spelling.

        Raises:
            DataError: where it cannot be told from another class.
        """
        text = spelling(name)
        if text not in self._means:
            _check_visible(text)
            self._check_other_spelling(text, f"class {shown(text)}")
            check_name(text)
            self._add(text)
        return self._means[text]

    def find(self, label: str) -> str:
        """The class that a label means: a known one, or a new one, which is added.

        Raises:
            DataError: where it is no class, or may be another spelling of one; nothing is added.
        """
        found = self._means.get(label)
        if found is None:
            found = self._means[label] = self._find(label)
        return found

    def _find(self, label: str) -> str:
        text = spelling(label)
        if text in self._means:
            return self._means[text]
        same = [name for name in self._like.get(look(text), []) if spelling(name) == text]
        if len(same) == 1:  # a name that an earlier release took as it was
            return same[0]
        value = truth(text)
        alike = [name for name in self.names if value is not None and truth(name) is value]
        if len(alike) == 1:  # spreadsheets write truth values in capitals of their own language, whatever was there
            self.read_as[text] = alike[0]
            return alike[0]
        _check_visible(text)
        self._check_other_spelling(text, f"label {shown(text)}")
        if self._closed:
            check_name(text)
            adds = f"; {self._declare} adds some" if self._declare == "--new-classes" else ""
            raise DataError(
                f"label {shown(text)} is not among the classes.{nearest(text, self.names)} Classes: "
                f"{', '.join(self.names)}{adds}."
            )
        self._check_new(text)
        self._add(text)
        return text

    def _add(self, name: str) -> None:
        self.names.append(name)
        self._means[name] = name
        self._like.setdefault(look(name), []).append(name)
        self._misread |= {found: name for found in _misreadings(name)}

    def _check_other_spelling(self, text: str, what: str) -> None:
        """Refuse what is likely to be a known class, spelled otherwise."""
        other = next(iter(self._like.get(look(text), [])), None)
        if other is not None:
            by_case = "by case only" if other.casefold() == text.casefold() else "in its spelling only"
            many = self._how_many(text, other)
            raise DataError(f"{what} differs from class {shown(other)} {by_case}; write one of the two{many}.")
        meant = self._misread.get(text) or next((n for n in _misreadings(text) if n in self._means), None)
        if meant is not None:
            raise DataError(
                f"{what} and class {shown(meant)} are one, read in two encodings; write it in one way, and open and "
                f"save tables as 'CSV UTF-8'{self._how_many(text, meant)}."
            )

    def _check_new(self, text: str) -> None:
        """Refuse a label as a new class that is likely to be none, or several."""
        check_name(text)
        anyway = f"; if it is a class, {self._how_to_declare(text)}"
        if means_nothing(text):
            many = ""
            if text in self._counts:
                many = f" ({self._counts[text]} of {sum(self._counts.values())} labels)"
            raise DataError(
                f"label {shown(text)}{many} looks like none. Where it stands for a sample without a label, "
                f"{self._empty}{anyway}."
            )
        if _is_list(text):
            raise DataError(f"label {shown(text)} is a list; a sample has one class. Write that alone{anyway}.")
        for label in (*self._several, text):
            parts = [part for part in _JOINED.split(label) if part]
            if len(parts) > 1 and all(self._may_be_class(part, text) for part in parts):
                raise DataError(
                    f"label {shown(label)} seems to name several classes ({', '.join(parts)}); a sample has one. "
                    f"If it is one class, {self._how_to_declare(label)}."
                )
        if _JOINED.search(text):
            self._several.append(text)

    def _may_be_class(self, part: str, new: str) -> bool:
        key = look(part)
        return key in self._like or key in self._expected or key == look(new)

    def _how_to_declare(self, name: str) -> str:
        if self._declare != "--classes":
            return f"declare it: {self._declare} {shown(name)}"
        every = list(self._counts)
        names = ",".join(f'"{n}"' if "," in n else n for n in every[:_NAMED]) + (",..." if len(every) > _NAMED else "")
        return f"name all classes: --classes '{names}'"

    def _how_many(self, *names: str) -> str:
        found = [f"{shown(name)}: {self._counts[name]}" for name in names if name in self._counts]
        return f" ({', '.join(found)})" if found else ""


def declared(names: Iterable[object], field: str = "class_names") -> tuple[str, ...]:
    """Names of classes that somebody declares, in their one spelling.

    Raises:
        DataError: where two of them are one class, or one is no name.
    """
    if isinstance(names, str | bytes):
        raise DataError(f"{field} is {shown(names)}; give a list of names.")
    vocabulary, before = Vocabulary(declare=field), set[str]()
    for name in names:
        text = spelling(name)
        if text in before:
            raise DataError(f"Class name {shown(text)} occurs twice; class names must be unique.")
        before.add(vocabulary.declare(text))
    return tuple(vocabulary.names)


def spellings(values: Iterable[object]) -> Counter[str]:
    """How many labels each spelling has; those that stand for nothing are left out."""
    counts = Counter(spelling(value) for value in values)
    del counts[""]
    return counts


def means_nothing(name: str) -> bool:
    """Whether tables write this where there is no label."""
    low = name.casefold()
    bare = re.sub(r"[\s_-]+|^[<(\[{]+|[>)\]}.!?]+$", "", low)
    return low in _NOTHING or bare in _NOTHING or bool(_SIGNS.fullmatch(name))


def _is_visible(name: str, place: int) -> bool:
    character = name[place]
    if character in _JOINERS:
        return 0 < place < len(name) - 1 and not name[place - 1].isascii() and not name[place + 1].isascii()
    return unicodedata.category(character) != "Cf" and character not in _FILLERS


def _is_list(text: str) -> bool:
    if text[0] + text[-1] not in ("[]", "{}", "()"):
        return False
    with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        return isinstance(ast.literal_eval(text[:1000]), list | tuple | dict | set)
    return False


@lru_cache(4096)
def _misreadings(name: str) -> frozenset[str]:
    """What becomes of a name that is saved in one encoding and read in another."""
    if name.isascii():
        return frozenset()
    found = {name.encode("ascii", "replace").decode()}
    pairs = [("utf-8", read) for read in _MISREAD_UTF_8]
    if len(name) > 1:  # a single letter becomes one, which may be a class as well
        pairs += _MISREAD
    for saved, read in pairs:
        with suppress(UnicodeEncodeError):
            found.add(spelling(name.encode(saved).decode(read, "replace")))
    return frozenset(text for text in found if text != name and text.strip("?\ufffd "))


def _repaired(text: str) -> str | None:
    """What a text was before its UTF-8 was read in another encoding; None where that is not so."""
    for encoding in ("cp1252", "cp850", "cp437", "cp1251"):
        with suppress(UnicodeError):
            meant = b"".join(_byte(c, encoding) for c in text).decode("utf-8")
            # Rare pairs, such as in 'Spaß–Faktor', are valid UTF-8 too, of scripts that nobody expects there.
            if meant != text and all(_is_common(c) for c in meant):
                return _repaired(meant) or spelling(meant)
    return None


def _byte(character: str, encoding: str) -> bytes:
    try:
        return character.encode(encoding)
    except UnicodeEncodeError:
        return character.encode("latin-1")  # bytes that the encoding leaves undefined


def _is_common(character: str) -> bool:
    code = ord(character)
    ranges = ((0x20, 0x7E), (0xA0, 0x17F), (0x370, 0x52F), (0x5D0, 0x5EA), (0x620, 0x64A), (0x2010, 0x2122))
    return code >= 0x3000 or any(low <= code <= high for low, high in ranges)
