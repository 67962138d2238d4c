"""Styles of strategies: one colour, dash and width each, the same in every chart, table and legend of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.summary import REFERENCE
from runtime.palette import BLUE, GREEN, VERMILION

# Okabe and Ito's palette, some tones darker so that lines show on light ground; each pair: on light ground, on dark.
_POLICIES: tuple[tuple[str, str], ...] = ((VERMILION, "#FF8A3D"), ("#B3478A", "#EBA0CB"))
_STRATEGIES: tuple[tuple[str, str], ...] = (
    (BLUE, "#4FA8E8"),
    (GREEN, "#35C99B"),
    ("#5B4BB5", "#AFA3F5"),
    ("#4AA5DC", "#9AD4F7"),
    ("#C98A00", "#F2B84B"),
)
_REFERENCE = ("#5F6673", "#B4BCC8")
_DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))  # tell apart those that come after the palette's end


@dataclass(frozen=True)
class StrategyStyle:
    """The colour, dash and width of one strategy's line."""

    light: str  # colour on light ground
    dark: str  # colour on dark ground
    dash: tuple[int, ...]
    width: float
    prominent: bool  # a policy or random: stands out among many


def assign_styles(names: Sequence[str], policies: Sequence[str]) -> dict[str, StrategyStyle]:
    """The style of each strategy: policies thick, random grey and dashed, the others in the palette's order."""
    result: dict[str, StrategyStyle] = {}
    others = 0
    for name in names:
        if name == REFERENCE:
            result[name] = StrategyStyle(*_REFERENCE, (5, 4), 2.2, True)
            continue
        if name in policies:
            i, colours, width = list(policies).index(name), _POLICIES, 3.2
        else:
            i, colours, width = others, _STRATEGIES, 1.6
            others += 1
        dash = _DASHES[i // len(colours) % len(_DASHES)]
        result[name] = StrategyStyle(*colours[i % len(colours)], dash, width, name in policies)
    return result
