"""Numbers as text: the same in the terminal, in table.md and on the page."""

from __future__ import annotations

import textwrap

from evaluation.statistics import MeanInterval, Pair

WIDTH = 100  # columns of a terminal's table


def percent(value: float | None) -> str:
    """A fraction in points of 100; "–" where unknown."""
    return "–" if value is None else f"{100 * value:.1f}"


def signed_percent(value: float) -> str:
    """A share of 1 in per cent, whole and signed."""
    whole = round(100 * value)
    return f"{whole:+d} %" if whole else "0 %"


def points(row: MeanInterval) -> str:
    """Mean and half its interval in points of 100."""
    if row.ci95 is None:
        return f"{100 * row.mean:.2f}"
    return f"{100 * row.mean:.2f} ± {50 * (row.ci95[1] - row.ci95[0]):.2f}"


def difference(row: MeanInterval | None) -> str:
    """Mean and interval in points of 100, signed."""
    if row is None:
        return ""
    text = f"{100 * row.mean:+.2f}"
    if row.ci95 is not None:
        text += f" [{100 * row.ci95[0]:+.2f}, {100 * row.ci95[1]:+.2f}]"
    return text


def p_value(row: Pair | None) -> str:
    """Holm's p, or the verdict where there is no test."""
    if row is None:
        return ""
    if row.p_holm is None:
        return row.verdict
    return "< 0.0001" if row.p_holm < 1e-4 else f"{row.p_holm:.4f}"


def milliseconds(seconds: float | None) -> str:
    """Seconds in milliseconds, with three digits that count; "–" where unknown."""
    return "–" if seconds is None else f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:.0f}"


def megabytes(size: float | None) -> str:
    """Bytes as MB; "–" where unknown."""
    return "–" if size is None else f"{size / 1e6:.1f}"


def duration(seconds: float | None) -> str:
    """A time: in seconds below two minutes, else minutes, else hours; "not stated" where unknown."""
    if seconds is None:
        return "not stated"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def wrapped(text: str) -> list[str]:
    """Lines of at most WIDTH columns."""
    return textwrap.wrap(text, WIDTH, break_long_words=True)
