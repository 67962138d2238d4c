"""How strategies look: one colour, dash and width each, the same in every chart, table and legend of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.summary import REFERENCE

# After Okabe and Ito's palette, which the colour-blind can tell apart; each pair: on light ground, on dark.
_POLICIES = (("#D55E00", "#FF8A3D"), ("#B3478A", "#EBA0CB"))
_STRATEGIES = (
    ("#0072B2", "#4FA8E8"),
    ("#009E73", "#35C99B"),
    ("#5B4BB5", "#AFA3F5"),
    ("#4AA5DC", "#9AD4F7"),
    ("#C98A00", "#F2B84B"),
)
_REFERENCE = ("#5F6673", "#B4BCC8")
_DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))  # tell apart those that come after the palette's end


@dataclass(frozen=True)
class Look:
    """Of one strategy."""

    light: str  # colour on light ground
    dark: str  # colour on dark ground
    dash: tuple[int, ...]
    width: float
    prominent: bool  # a policy or random: stands out among many


def looks(names: Sequence[str], policies: Sequence[str]) -> dict[str, Look]:
    """By strategy: policies thick, random grey and dashed, the others in the palette's order."""
    result: dict[str, Look] = {}
    others = 0
    for name in names:
        if name == REFERENCE:
            result[name] = Look(*_REFERENCE, (5, 4), 2.2, True)
            continue
        if name in policies:
            i, colours, width = list(policies).index(name), _POLICIES, 3.2
        else:
            i, colours, width = others, _STRATEGIES, 1.6
            others += 1
        dash = _DASHES[i // len(colours) % len(_DASHES)]
        result[name] = Look(*colours[i % len(colours)], dash, width, name in policies)
    return result
