"""The charts as PNG and SVG, for papers and slides: light ground, with legends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt
import vl_convert

from evaluation.report import charts
from evaluation.report.findings import protocol_line
from evaluation.report.styles import Look, looks
from evaluation.runs import Played

_SCALE = 2.0  # pixels of the PNG per unit of the drawing


def draw(
    played: Sequence[Played],
    summaries: Mapping[str, dict[str, Any]],
    summary: Mapping[str, Any],
    files: Mapping[str, str],
) -> Iterator[tuple[str, bytes]]:
    """File name and content of every picture.

    Args:
        summaries: by unique name of the data set, in the order of `played`.
        summary: of the whole report.
        files: by the same names, how file names begin.
    """
    for p, (name, s) in zip(played, summaries.items(), strict=True):
        look = looks(list(p.runs), list(s["policies"]))
        title = {"text": f"{name}: test accuracy, mean and 95 % interval", "subtitle": protocol_line(s)}
        yield from _both(f"{files[name]}_curves", charts.curves(p, s, look, True), look, title, width=520)
        differences = charts.differences(p, s, look)
        if differences is not None:
            title = {
                "text": f"{name}: paired differences, mean, 95 % interval and every seed",
                "subtitle": "filled: significant after Holm's correction",
            }
            yield from _both(f"{files[name]}_differences", differences, look, title, width=520)
        panels = [c.properties(title=t, width=250) for t, c in charts.balance(p, look, True).items()]
        title = {"text": f"{name}: balance of the modalities", "subtitle": protocol_line(s)}
        yield from _both(f"{files[name]}_balance", alt.concat(*panels, columns=3), look, title)
    penalty = summary["across"]["penalty"] if "across" in summary else summary["penalty"]
    if penalty:
        title = {
            "text": "Pairwise penalties: row beats column",
            "subtitle": f"sum over {len(played)} data set{'s' * (len(played) != 1)}; low averages are good",
        }
        yield from _both("penalty", charts.penalty(penalty), looks(penalty["strategies"], []), title)


def _both(
    name: str, chart: alt.TopLevelMixin, look: Mapping[str, Look], title: Mapping[str, str], **size: int
) -> Iterator[tuple[str, bytes]]:
    spec = chart.properties(title=title, **size).to_dict(validate=False) | {"config": charts.theme(look, dark=False)}
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    yield f"{name}.svg", svg.encode()
    yield f"{name}.png", vl_convert.svg_to_png(svg, scale=_SCALE)
