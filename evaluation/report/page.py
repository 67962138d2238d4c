"""report.html: one file with everything in it, which asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import vl_convert

from evaluation.playing import Played
from evaluation.report import charts, tables
from evaluation.report import findings as words
from evaluation.report.gallery import has_gallery, make_gallery
from evaluation.report.styles import Look, looks
from learners.settings import flat

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
    groups: dict[str, str] = field(default_factory=dict)  # id of the figure -> group
    themes: dict[str, Any] = field(default_factory=dict)  # group -> {"light", "dark"}
    names: dict[str, list[str]] = field(default_factory=dict)  # group -> strategies, in the order of their buttons
    galleries: dict[str, Any] = field(default_factory=dict)  # group -> gallery

    def group(self, name: str, look: Mapping[str, Look]) -> None:
        """Charts that share strategies."""
        self.themes[name] = {"light": charts.theme(look, dark=False), "dark": charts.theme(look, dark=True)}
        self.themes[name]["light"]["background"] = "transparent"
        self.names[name] = list(look)

    def figure(
        self, group: str, chart: alt.TopLevelMixin, title: str, caption: str = "", height: int = 366, width: int = 0
    ) -> _Figure:
        """Add a chart that is as wide as its place."""
        figure = _Figure(f"{group}-{len(self.specs)}", title, caption, height, width)
        spec = chart.properties(width="container").to_dict(validate=False)
        spec["autosize"] = {"type": "fit-x", "contains": "padding"}
        self.specs[figure.id] = {k: v for k, v in spec.items() if k != "config"}
        self.groups[figure.id] = group
        return figure


def render_page(played: Sequence[Played], summary: Mapping[str, Any]) -> str:
    """The whole page as text.

    Args:
        summary: of the whole report, as in summary.json.
    """
    summaries = summary.get("datasets", {played[0].pool.name: summary})
    data = _Data()
    budget = PICTURE_BYTES // max(1, sum(has_gallery(p.pool) for p in played))
    sections = [
        _section(f"d{i}", p, name, s, data, budget, len(summaries) > 1)
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
        across=_across(summaries, summary["across"], data) if "across" in summary else None,
        style=(_FOLDER / "page.css").read_text("utf-8"),
        scripts=[bundle, script],
        hashes=[_hash(bundle), _hash(script)],
        data=_embedded(data),
    )


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    return vl_convert.javascript_bundle(vl_version=_VEGA_LITE).replace("</script", "<\\/script")


def _section(
    group: str, p: Played, name: str, s: Mapping[str, Any], data: _Data, budget: int, brief: bool
) -> dict[str, Any]:
    look = looks(list(p.runs), list(s["policies"]))
    data.group(group, look)
    few = len(look) <= charts.FEW
    bands = (
        "every strategy" if few else "policies and random; point at another strategy, or press its name, to see its own"
    )
    differences = charts.differences(p, s, look)
    cost = charts.cost(s, look)
    rows = len(look)
    gallery = make_gallery(p, budget) if has_gallery(p.pool) else None
    if gallery:
        data.galleries[group] = gallery
    balance = [data.figure(group, c, title, height=255) for title, c in charts.balance(p, look).items()]
    return {
        "id": group,
        "name": name,
        "headline": words.headline(s, name),
        "verdict": _verdict(s),
        "findings": words.findings(s, brief),
        "cautions": words.cautions(s),
        "training_note": words.training_note(s),
        "notes": s["notes"],
        "protocol": words.protocol_line(s),
        "look": look,
        "policies": list(s["policies"]),
        "overview": tables.overview(s),
        "further": tables.further_pairs(s),
        "curves": data.figure(
            group,
            charts.curves(p, s, look),
            "Learning curves",
            f"Raw means over the seeds; bands: 95 % intervals of {bands}.",
        ),
        "differences": differences
        and data.figure(
            group,
            differences,
            "Paired differences",
            "Small dots: one seed each. Large dots: mean and 95 % interval, filled where significant after Holm's "
            "correction.",
            30 * (rows - 1) + 46,
        ),
        "saving": tables.saving(s),
        "balance": balance,
        "balance_table": tables.balance(s),
        "cost": cost
        and data.figure(group, cost, "Time to select a batch", "Medians over rounds and seeds.", 24 * rows + 76),
        "cost_table": tables.cost(s),
        "training": tables.policies(s),
        "gallery": gallery,
        "facts": _rows({k: v for k, v in p.facts.items() if k not in _LISTED_ELSEWHERE}),
        "pairing": s["pairing"],
        "cards": {n: _rows(card) for n, card in s["policies"].items()},
    }


def _verdict(summary: Mapping[str, Any]) -> str:
    """Of the headline, as a class of the style sheet."""
    pair = words.headline_pair(summary)
    return "none" if pair is None else pair[1]["verdict"].split()[0]


def _across(summaries: Mapping[str, Any], across: Mapping[str, Any], data: _Data) -> dict[str, Any]:
    first = next(iter(summaries.values()))
    look = looks(across["strategies"], list(first["policies"]))
    data.group("across", look)
    penalty, profile = across["penalty"], across["profile"]
    return {
        "line": words.across_line(list(summaries.values())),
        "look": look,
        "policies": list(first["policies"]),
        "many": len(look) > charts.FEW,
        "tables": [t for t in (tables.differences(summaries), tables.ranks(across)) if t],
        "penalty_table": penalty and tables.penalty(penalty, len(summaries)),
        "penalty": penalty
        and data.figure(
            "across",
            charts.penalty(penalty),
            "Pairwise penalties",
            "Row beats column; the bottom row averages each column: lower is better.",
            26 * len(look) + 140,
            30 * len(look) + 140,
        ),
        "profile": profile
        and data.figure(
            "across",
            charts.profile(profile, look),
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
    """As the page's Content-Security-Policy names a script that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _embedded(data: _Data) -> str:
    """JSON that can stand inside a <script> element whatever names it holds."""
    text = json.dumps(vars(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
