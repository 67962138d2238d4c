"""The charts of a report, as Altair definitions that the page and the pictures for papers share.

In every chart `s` is the strategy. The parameter `chosen` lists the strategies that a reader has picked out; the others
fade. Colours come from the theme (`theme`), so one definition serves light and dark ground. A `static` chart has
a legend and lacks what only shows under a pointer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from evaluation import statistics
from evaluation.report.styles import StrategyStyle
from evaluation.runs import Played
from evaluation.summarise import modality_spread, number_of_labels
from evaluation.summary import REFERENCE, SECONDS, Penalty, Profile, Summary

FEW = 7  # up to so many strategies every one shows its interval

_PICKED = "length(chosen) == 0 || indexof(chosen, datum.s) >= 0"
_COST_COLOURS = ("#0B4F8A", "#4F9BD9", "#A9CDEB")
_HEIGHT = 320


def theme(styles: Mapping[str, StrategyStyle], dark: bool) -> dict[str, Any]:
    """The config for Vega-Lite: colours in the order of the strategies, and quiet axes."""
    text, grid = ("#E6E9EE", "#333A45") if dark else ("#1D232B", "#E3E7EC")
    axis: dict[str, Any] = {"labelColor": text, "titleColor": text, "tickColor": grid, "domainColor": grid}
    axis |= {"gridColor": grid, "titleFontWeight": "normal", "labelFontSize": 11, "titleFontSize": 12}
    axis |= {"labelLimit": 120, "labelSeparation": 6}
    return {
        "background": "transparent" if dark else "white",
        "font": "system-ui, 'Liberation Sans', Arial, sans-serif",
        "view": {"stroke": None},
        "axis": axis,
        "legend": {"labelColor": text, "titleColor": text, "labelLimit": 160, "symbolSize": 200},
        "title": {"color": text, "subtitleColor": text, "fontSize": 13, "subtitleFontSize": 11, "anchor": "start"},
        "range": {"category": [(x.dark if dark else x.light) for x in styles.values()]},
        "rule": {"color": text},
        "text": {"color": text},
    }


def curves(
    played: Played, summary: Summary, styles: Mapping[str, StrategyStyle], static: bool = False
) -> alt.LayerChart:
    """Test accuracy by number of labels: raw means with 95 % intervals, and the reference lines."""
    values = {name: r.accuracy for name, r in played.runs.items()}
    chart = _lines(played, values, styles, "test accuracy (%)", static)
    references = []
    if summary.label_saving:
        references.append((f"{REFERENCE}, last round", summary.label_saving.target, [2, 3]))
    if summary.all_labels_accuracy:
        references.append(("trained on all labels", summary.all_labels_accuracy.mean, [9, 4]))
    for text, level, dash in references:
        row = [{"y": _round(100 * level), "t": f"{text}: {100 * level:.1f} %"}]
        base = alt.Chart(alt.Data(values=row)).encode(y="y:Q", tooltip=alt.Tooltip("t:N", title="reference"))
        chart += base.mark_rule(strokeDash=dash, opacity=0.75)
        below = level == max(r[1] for r in references) and len(references) > 1
        label = {"align": "left", "baseline": "top" if below else "bottom", "dx": 4, "dy": 3 if below else -3}
        chart += base.mark_text(fontSize=11, opacity=0.9, x=0, **label).encode(text="t:N")
    return chart


def balance(played: Played, styles: Mapping[str, StrategyStyle], static: bool = False) -> dict[str, alt.LayerChart]:
    """Charts by number of labels, under their titles: weakest modality, gap, class coverage, heads, Shapley values."""
    runs, modalities = played.runs, played.pool.modalities
    spread = {name: modality_spread(r) for name, r in runs.items()}
    panels: dict[str, tuple[dict[str, np.ndarray], str]] = {
        "Weakest modality": ({n: s[0][None] for n, s in spread.items()}, "head accuracy (%)"),
        "Gap between the modalities": ({n: s[1][None] for n, s in spread.items()}, "points"),
        "Classes with a label": ({n: r.class_coverage.mean(0)[None] for n, r in runs.items()}, "share of classes (%)"),
    }
    for m, modality in enumerate(modalities):
        heads = {n: r.modality_accuracy[:, :, m] for n, r in runs.items()}
        panels[f"Head of {modality}"] = heads, "head accuracy (%)"
    for m, modality in enumerate(modalities):
        panels[f"Shapley value of {modality}"] = {n: r.shapley[:, :, m] for n, r in runs.items()}, "points of accuracy"
    return {
        title: _lines(played, values, styles, unit, static).properties(height=200)
        for title, (values, unit) in panels.items()
    }


def differences(played: Played, summary: Summary, styles: Mapping[str, StrategyStyle]) -> alt.LayerChart | None:
    """Paired AULC differences: every seed, mean and 95 % interval; None without pairs."""
    rows, judged = summary.judged_pairs(), summary.judged
    if not rows:
        return None
    dots, means = [], []
    for name, row in rows.items():
        first, second = played.runs[row.first], played.runs[row.second]
        d = 100 * (statistics.aulc(first.accuracy) - statistics.aulc(second.accuracy))
        offsets = (np.arange(len(d)) * 0.618034) % 1 - 0.5  # spread evenly, the same every time
        dots += [
            {"s": name, "x": _round(v), "o": round(float(o), 2), "n": int(n)}
            for v, o, n in zip(d, offsets, first.seeds, strict=True)
        ]
        low, high = row.ci95 or (row.mean, row.mean)
        p = row.verdict if row.p_holm is None else f"{row.p_holm:.4f} ({row.verdict})"
        ends = {"l": _round(100 * low), "h": _round(100 * high)}
        shown = row.verdict in ("better", "worse")
        means.append({"s": name, "x": _round(100 * row.mean), **ends, "p": p, "f": int(shown)})
    what = f"strategy minus {REFERENCE}" if judged is None else f"{judged} minus strategy"
    y = alt.Y("s:N", title=None, sort=list(rows), axis=alt.Axis(grid=False, ticks=False, domain=False))
    title = f"AULC difference (points), {what}"
    x = alt.X("x:Q", title=title)
    colour, faded = _colour(styles), alt.condition(_PICKED, alt.value(1), alt.value(0.15))
    dot = alt.Chart(alt.Data(values=dots)).mark_circle(size=26).encode(
        x=x, y=y, color=colour,
        yOffset=alt.YOffset("o:Q", scale=alt.Scale(domain=[-0.8, 0.8])),
        opacity=alt.condition(_PICKED, alt.value(0.45), alt.value(0.06)),
        tooltip=[alt.Tooltip("s:N", title="strategy"), alt.Tooltip("n:Q", title="seed"),
                 alt.Tooltip("x:Q", title="difference", format="+.2f")],
    )  # fmt: skip
    mean = alt.Chart(alt.Data(values=means))
    tip = [alt.Tooltip("s:N", title="strategy"), alt.Tooltip("x:Q", title="mean", format="+.2f"),
           alt.Tooltip("l:Q", title="from", format="+.2f"), alt.Tooltip("h:Q", title="to", format="+.2f"),
           alt.Tooltip("p:N", title="p (Holm)")]  # fmt: skip
    bar = mean.mark_rule(strokeWidth=2).encode(x=alt.X("l:Q", title=title), x2="h:Q", y=y, opacity=faded)
    point = mean.mark_point(size=95, strokeWidth=2.2, filled=False).encode(
        x=x, y=y, color=colour, opacity=faded, tooltip=tip,
        fill=alt.Fill("s:N", scale=_scale(styles), legend=None),
        fillOpacity=alt.condition("datum.f == 1", alt.value(1), alt.value(0)),
    )  # fmt: skip
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(strokeWidth=1).encode(x="x:Q")
    return alt.layer(zero, dot, bar, point).properties(height=30 * len(means)).add_params(_chosen())


def cost(summary: Summary, styles: Mapping[str, StrategyStyle]) -> alt.LayerChart | None:
    """Milliseconds per round for inference, scoring and picking; None where nothing was timed."""
    kinds = SECONDS[:3]
    rows = [
        {"s": name, "k": kind, "i": i, "x": _round(1000 * seconds)}
        for name, figures in summary.strategies.items()
        for i, kind in enumerate(kinds)
        if (seconds := getattr(figures.seconds, kind)) is not None
    ]
    if not rows:
        return None
    bars = alt.Chart(alt.Data(values=rows)).mark_bar(height=14).encode(
        x=alt.X("x:Q", title="milliseconds per round and episode"),
        y=alt.Y("s:N", title=None, sort=list(styles), axis=alt.Axis(grid=False, ticks=False)),
        color=alt.Color("k:N", title=None, scale=alt.Scale(domain=list(kinds), range=list(_COST_COLOURS)),
                        legend=alt.Legend(orient="top", symbolType="square")),
        order="i:Q",
        opacity=alt.condition(_PICKED, alt.value(1), alt.value(0.25)),
        tooltip=[alt.Tooltip("s:N", title="strategy"), alt.Tooltip("k:N", title="part"),
                 alt.Tooltip("x:Q", title="ms")],
    )  # fmt: skip
    return alt.layer(bars).properties(height=24 * len(summary.strategies)).add_params(_chosen())


def penalty(figures: Penalty) -> alt.LayerChart:
    """The penalty matrix as a map: row beats column."""
    names = figures.strategies
    rows: list[dict[str, Any]] = [
        {"s": row, "c": column, "v": round(v, 3)}
        for row, values in zip(names, figures.matrix, strict=True)
        for column, v in zip(names, values, strict=True)
    ]
    rows += [{"s": "average", "c": name, "v": round(figures.average[name], 3)} for name in names]
    highest = max(max(r["v"] for r in rows), 1e-3)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("c:N", sort=names, title="is beaten", axis=alt.Axis(orient="top", labelAngle=-40, grid=False)),
        y=alt.Y("s:N", sort=[*names, "average"], title="beats", axis=alt.Axis(grid=False)),
        tooltip=[alt.Tooltip("s:N", title="row"), alt.Tooltip("c:N", title="column"),
                 alt.Tooltip("v:Q", title="penalty", format=".2f")],
    )  # fmt: skip
    scale = alt.Scale(domain=[0, highest], range=["#F3F7FB", "#08519C"])
    cells = base.mark_rect(stroke="#8893A1", strokeWidth=0.4).encode(color=alt.Color("v:Q", scale=scale, legend=None))
    text = (
        base.transform_filter("datum.v > 0")
        .mark_text(fontSize=10)
        .encode(
            text=alt.Text("v:Q", format=".2f"),
            color=alt.condition(f"datum.v > {highest / 2}", alt.value("white"), alt.value("#1D232B")),
        )
    )
    return alt.layer(cells, text).properties(width=36 * len(names), height=26 * (len(names) + 1))


def profile(figures: Profile, styles: Mapping[str, StrategyStyle], static: bool = False) -> alt.LayerChart:
    """Performance profile: share of the starts on which a strategy's error is within a factor of the best."""
    rows = [
        {"s": name, "x": factor, "y": _round(100 * share)}
        for name, values in figures.share.items()
        for factor, share in zip(figures.factors, values, strict=True)
    ]
    title = "error (1 − AULC) at most so many times the best one's"
    return _strategy_lines(rows, styles, title, "share of the starts (%)", static, interpolate="step-after")


def _chosen() -> alt.Parameter:
    return alt.param(name="chosen", value=[])


def _round(value: float) -> float:
    return float(f"{value:.4g}") if abs(value) < 1 else round(float(value), 3)


def _scale(styles: Mapping[str, StrategyStyle]) -> alt.Scale:
    return alt.Scale(domain=list(styles), range="category")


def _colour(styles: Mapping[str, StrategyStyle], legend: Sequence[str] | None = None) -> alt.Color:
    return alt.Color("s:N", scale=_scale(styles), legend=_legend(legend))


def _legend(names: Sequence[str] | None) -> alt.Legend | None:
    if not names:
        return None
    stroke = {"symbolType": "stroke", "symbolFillColor": "transparent", "symbolStrokeWidth": 2.5, "symbolOpacity": 1}
    return alt.Legend(title=None, values=list(names), **stroke)


def _lines(
    played: Played, values: Mapping[str, np.ndarray], styles: Mapping[str, StrategyStyle], unit: str, static: bool
) -> alt.LayerChart:
    """Lines by number of labels of values [S, T + 1]; with one row there is no interval."""
    labels = number_of_labels(played)
    rows = []
    for name, v in values.items():
        shown = len(values) <= FEW or styles[name].prominent
        for at, column in zip(labels.tolist(), 100 * np.asarray(v, np.float64).T, strict=True):
            row = {"s": name, "x": at, "y": _round(column.mean())}
            ends = statistics.interval(column)
            if ends is not None and (shown or not static):
                row |= {"l": _round(ends[0]), "h": _round(ends[1]), "b": int(shown)}
            rows.append(row)
    return _strategy_lines(rows, styles, "labels", unit, static)


def _strategy_lines(
    rows: list[dict[str, Any]], styles: Mapping[str, StrategyStyle], x_title: str, unit: str, static: bool, **mark: Any
) -> alt.LayerChart:
    names = list(styles)
    rows = sorted(rows, key=lambda row: styles[row["s"]].width)  # what is drawn last lies on top
    axis = alt.Axis(format="d", tickMinStep=1) if "interpolate" not in mark else alt.Axis(format=".3~f")
    x = alt.X("x:Q", title=x_title, scale=alt.Scale(nice=False, zero=False), axis=axis)
    last: dict[str, float] = {}
    for row in rows:
        last[row["s"]] = last.get(row["s"], 0.0) + row["y"]
    order = sorted(last, key=lambda name: -last[name]) if static else None
    dashes = alt.Scale(domain=names, range=[list(v.dash) for v in styles.values()])
    widths = alt.Scale(domain=names, range=[v.width for v in styles.values()])
    calm = 0.9 if len(names) <= FEW else 0.45
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, color=_colour(styles, order))
    y = alt.Y("y:Q", title=unit, scale=alt.Scale(zero=False))
    for row in rows:
        if styles[row["s"]].prominent:
            row["q"] = 1
    line = base.mark_line(opacity=1, **mark).encode(
        y=y,
        strokeDash=alt.StrokeDash("s:N", scale=dashes, legend=_legend(order)),
        strokeWidth=alt.StrokeWidth("s:O", scale=widths, legend=None),
        strokeOpacity=alt.when("length(chosen) == 0 ? datum.q == 1 : indexof(chosen, datum.s) >= 0")
        .then(alt.value(1))
        .when("length(chosen) == 0")
        .then(alt.value(calm))
        .otherwise(alt.value(0.12)),
    )
    layers = [line]
    tooltip = [alt.Tooltip("s:N", title="strategy"), alt.Tooltip("x:Q", title=x_title),
               alt.Tooltip("y:Q", title=unit, format=".2f")]  # fmt: skip
    if any("l" in row for row in rows):
        band = base.mark_area(opacity=1).encode(
            y=alt.Y("l:Q", title=unit, scale=alt.Scale(zero=False)), y2="h:Q",
            fillOpacity=alt.condition(
                "length(chosen) == 0 ? datum.b == 1 : indexof(chosen, datum.s) >= 0", alt.value(0.13), alt.value(0)
            ),
        )  # fmt: skip
        layers.insert(0, band)
        tooltip += [alt.Tooltip("l:Q", title="from", format=".2f"), alt.Tooltip("h:Q", title="to", format=".2f")]
    if "interpolate" not in mark and not static:
        hover = base.mark_point(size=90, filled=True, opacity=0).encode(y=y, tooltip=tooltip)
        layers.append(hover)
    return alt.layer(*layers).properties(height=_HEIGHT).add_params(_chosen())
