"""Tables in Markdown, whole or line by line as their rows come."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def table(titles: Sequence[object], rows: Iterable[Iterable[object]], left: Collection[int] = (0,)) -> str:
    """A whole table; `left` as for `head`."""
    return "\n".join([head(titles, left), *map(row, rows)])


def head(titles: Sequence[object], left: Collection[int] = (0,)) -> str:
    """The line of titles and the rule below it.

    Args:
        left: columns that are aligned to the left, by number; all others, figures, to the right.
    """
    rule = "".join("---|" if i in left else "---:|" for i in range(len(titles)))
    return f"{row(titles)}\n|{rule}"


def row(cells: Iterable[object]) -> str:
    """One line. What a user named goes through `escape` first."""
    return f"| {' | '.join(map(str, cells))} |"


def escape(text: str) -> str:
    """Text that Markdown leaves as it is, and that stays in its cell."""
    for old, new in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(old, new)
    return text
