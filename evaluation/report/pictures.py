"""The charts as PNG and SVG, for papers and slides: light ground, with legends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import altair as alt
import vl_convert

from evaluation.report import charts
from evaluation.report.findings import protocol_line
from evaluation.report.styles import StrategyStyle, assign_styles
from evaluation.runs import Played
from evaluation.summary import Comparison

_SCALE = 2.0  # pixels of the PNG per unit of the drawing


def draw(played: Sequence[Played], comparison: Comparison, files: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """The file name and content of every picture.

    Args:
        comparison: of `played`.
        files: by the names of its data sets, how file names begin.
    """
    for p, (name, s) in zip(played, comparison.datasets.items(), strict=True):
        styles = assign_styles(list(p.runs), list(s.policies))
        title = {"text": f"{name}: test accuracy, mean and 95 % interval", "subtitle": protocol_line(s)}
        yield from _both(f"{files[name]}_curves", charts.curves(p, s, styles, True), styles, title, width=520)
        differences = charts.differences(p, s, styles)
        if differences is not None:
            title = {
                "text": f"{name}: paired differences, mean, 95 % interval and every seed",
                "subtitle": "filled: significant after Holm's correction",
            }
            yield from _both(f"{files[name]}_differences", differences, styles, title, width=520)
        panels = [c.properties(title=t, width=250) for t, c in charts.balance(p, styles, True).items()]
        title = {"text": f"{name}: balance of the modalities", "subtitle": protocol_line(s)}
        yield from _both(f"{files[name]}_balance", alt.concat(*panels, columns=3), styles, title)
    penalty = comparison.penalty
    if penalty:
        title = {
            "text": "Pairwise penalties: row beats column",
            "subtitle": f"sum over {len(played)} data set{'s' * (len(played) != 1)}; low averages are good",
        }
        yield from _both("penalty", charts.penalty(penalty), assign_styles(penalty.strategies, []), title)


def _both(
    name: str, chart: alt.TopLevelMixin, styles: Mapping[str, StrategyStyle], title: Mapping[str, str], **size: int
) -> Iterator[tuple[str, bytes]]:
    spec = chart.properties(title=title, **size).to_dict(validate=False) | {"config": charts.theme(styles, dark=False)}
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    yield f"{name}.svg", svg.encode()
    yield f"{name}.png", vl_convert.svg_to_png(svg, scale=_SCALE)
