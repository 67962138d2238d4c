"""Names that must differ: of sources in figures, of data sets in tables, of folders; and that files can hold."""

from __future__ import annotations

from collections.abc import Iterable


def unique_names(names: Iterable[str]) -> list[str]:
    """The names, with "-2", "-3", ... appended to those that are taken by then.

    What becomes of a name depends on those before it alone, so further names at the end change none.
    """
    unique: dict[str, None] = {}
    for name in names:
        candidate, number = name, 2
        while candidate in unique:
            candidate, number = f"{name}-{number}", number + 1
        unique[candidate] = None
    return list(unique)


def is_storable(text: str) -> bool:
    """Whether a file can hold a text: half a character (a lone surrogate), as of a name that is no UTF-8, it cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
