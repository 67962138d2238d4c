"""report.html: one file with everything in it, which asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert

from envs.fields import flat
from evaluation.report import charts, tables
from evaluation.report.findings import (
    across_line,
    cautions,
    findings,
    headline,
    headline_pair,
    protocol_line,
    training_gain,
    training_note,
)
from evaluation.report.gallery import has_gallery, make_gallery
from evaluation.report.styles import StrategyStyle, assign_styles
from evaluation.runs import Played
from evaluation.summary import Across, Comparison, Summary

PICTURE_BYTES = 6 << 20  # pictures of all galleries together

_FOLDER = Path(__file__).parent
_VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
_LISTED_ELSEWHERE = ("policies", "pairing", "notes")


@dataclass(frozen=True)
class _Figure:
    """A place for a chart."""

    id: str
    title: str
    caption: str
    height: int  # reserved until the chart is drawn
    least_width: int = 0  # where the screen is narrower the chart scrolls in its box


@dataclass
class _Data:
    """What the page's script reads."""

    specs: dict[str, Any] = field(default_factory=dict)  # id of the figure -> Vega-Lite
    groups: dict[str, str] = field(default_factory=dict)  # id of the figure -> name of its group
    themes: dict[str, Any] = field(default_factory=dict)  # group -> {"light", "dark"}
    names: dict[str, list[str]] = field(default_factory=dict)  # group -> strategies, in the order of their buttons
    galleries: dict[str, Any] = field(default_factory=dict)  # group -> gallery


class _Group:
    """Charts that share strategies, and the buttons that highlight these.

    Args:
        data: receives the charts.
    """

    def __init__(self, data: _Data, name: str, styles: Mapping[str, StrategyStyle]):
        self.data, self.name = data, name
        light = charts.theme(styles, dark=False) | {"background": "transparent"}
        data.themes[name] = {"light": light, "dark": charts.theme(styles, dark=True)}
        data.names[name] = list(styles)

    def figure(
        self, chart: alt.TopLevelMixin, title: str, caption: str = "", height: int = 366, width: int = 0
    ) -> _Figure:
        """Add a chart that is as wide as its place."""
        figure = _Figure(f"{self.name}-{len(self.data.specs)}", title, caption, height, width)
        spec = chart.properties(width="container").to_dict(validate=False)
        spec["autosize"] = {"type": "fit-x", "contains": "padding"}
        self.data.specs[figure.id] = {k: v for k, v in spec.items() if k != "config"}
        self.data.groups[figure.id] = self.name
        return figure


@dataclass(frozen=True)
class _DataSet:
    """A data set that the page shows."""

    id: str  # of its section, and the name of its charts' group
    name: str
    played: Played
    summary: Summary
    styles: Mapping[str, StrategyStyle]
    picture_bytes: int  # that its gallery may take
    brief: bool  # one of several: findings are counted only


def render_page(played: Sequence[Played], comparison: Comparison) -> str:
    """The whole page as text.

    Args:
        comparison: of `played`.
    """
    summaries, data = comparison.datasets, _Data()
    budget = PICTURE_BYTES // max(1, sum(has_gallery(p.pool) for p in played))
    sections = [
        _section(_DataSet(f"d{i}", name, p, s, _styles(p.runs, s), budget, len(summaries) > 1), data)
        for i, (p, (name, s)) in enumerate(zip(played, summaries.items(), strict=True))
    ]
    script = (_FOLDER / "page.js").read_text("utf-8")
    bundle = _bundle()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.j2").render(
        title=f"Comparison on {', '.join(summaries)}",
        sections=sections,
        across=comparison.across and _across(summaries, comparison.across, data),
        css=(_FOLDER / "page.css").read_text("utf-8"),
        scripts=[bundle, script],
        hashes=[_hash(bundle), _hash(script)],
        data=_embedded(data),
    )


def _styles(names: Iterable[str], summary: Summary) -> dict[str, StrategyStyle]:
    return assign_styles(list(names), list(summary.policies))


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    bundle = vl_convert.javascript_bundle(vl_version=_VEGA_LITE)  # type: ignore[call-arg]  # its stub lacks a default
    return bundle.replace("</script", "<\\/script")


def _section(shown: _DataSet, data: _Data) -> dict[str, Any]:
    """What the template needs to know of a data set."""
    p, s = shown.played, shown.summary
    group = _Group(data, shown.id, shown.styles)
    gallery = make_gallery(p, shown.picture_bytes) if has_gallery(p.pool) else None
    if gallery:
        data.galleries[shown.id] = gallery
    return {
        "id": shown.id,
        "name": shown.name,
        "styles": shown.styles,
        "policies": list(s.policies),
        "gallery": gallery,
        **_sentences(shown),
        **_figures(shown, group),
        "overview": tables.overview(s),
        "further": tables.further_pairs(s),
        "saving": tables.saving(s),
        "balance_table": tables.balance(s),
        "cost_table": tables.cost(s),
        "training": tables.policies(s),
        "facts": _rows({k: v for k, v in p.facts.items() if k not in _LISTED_ELSEWHERE}),
        "pairing": s.facts["pairing"],
        "cards": {n: _rows(card) for n, card in s.policies.items()},
    }


def _sentences(shown: _DataSet) -> dict[str, Any]:
    s = shown.summary
    return {
        "headline": headline(s, shown.name),
        "verdict": _verdict(s),
        "training_gain": training_gain(s),
        "findings": findings(s, shown.brief),
        "cautions": cautions(s),
        "training_note": training_note(s),
        "notes": s.facts["notes"],
        "protocol": protocol_line(s),
    }


def _figures(shown: _DataSet, group: _Group) -> dict[str, Any]:
    p, s, styles = shown.played, shown.summary, shown.styles
    bands = "policies and random; point at another strategy, or press its name, to see its own"
    if len(styles) <= charts.FEW:
        bands = "every strategy"
    differences, cost = charts.differences(p, s, styles), charts.cost(s, styles)
    return {
        "balance": [group.figure(c, title, height=255) for title, c in charts.balance(p, styles).items()],
        "curves": group.figure(
            charts.curves(p, s, styles),
            "Learning curves",
            f"Raw means over the seeds; bands: 95 % intervals of {bands}.",
        ),
        "differences": differences
        and group.figure(
            differences,
            "Paired differences",
            "Small dots: one seed each. Large dots: mean and 95 % interval, filled where significant after Holm's "
            "correction.",
            30 * (len(styles) - 1) + 46,
        ),
        "cost": cost
        and group.figure(cost, "Time to select a batch", "Medians over rounds and seeds.", 24 * len(styles) + 76),
    }


def _verdict(summary: Summary) -> str:
    """The verdict of the headline as a class of the style sheet."""
    pair = headline_pair(summary)
    return "none" if pair is None else pair.verdict.split()[0]


def _across(summaries: Mapping[str, Summary], across: Across, data: _Data) -> dict[str, Any]:
    """What the template needs to know of all data sets together."""
    first = next(iter(summaries.values()))
    styles = _styles(across.strategies, first)
    group = _Group(data, "across", styles)
    penalty, profile = across.penalty, across.profile
    return {
        "line": across_line(list(summaries.values())),
        "styles": styles,
        "policies": list(first.policies),
        "many": len(styles) > charts.FEW,
        "tables": [t for t in (tables.differences(summaries), tables.ranks(across)) if t],
        "penalty_table": penalty and tables.penalty(penalty, len(summaries)),
        "penalty": penalty
        and group.figure(
            charts.penalty(penalty),
            "Pairwise penalties",
            "Row beats column; the bottom row averages each column: lower is better.",
            26 * len(styles) + 140,
            30 * len(styles) + 140,
        ),
        "profile": profile
        and group.figure(
            charts.profile(profile, styles),
            "Performance profile",
            "At 1: how often a strategy is the best. Further right: how often its error is within that factor of the "
            "best one's. Every start counts; data sets weigh the same (Dolan and Moré 2002).",
        ),
    }


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested facts as rows of a table."""
    return [(name, _cell(value)) for name, value in flat(facts).items()]


def _cell(value: Any) -> str:
    if not isinstance(value, (list, tuple)):
        return str(value)
    if any(isinstance(inner, Mapping) for inner in value):
        return json.dumps(value, ensure_ascii=False)
    return ", ".join(map(str, value))


def _hash(script: str) -> str:
    """The name by which the page's Content-Security-Policy lets a script run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _embedded(data: _Data) -> str:
    """JSON that can stand inside a <script> element whatever names it holds."""
    text = json.dumps(vars(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
