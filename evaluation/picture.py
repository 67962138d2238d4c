"""The picture of a comparison: learning curves, and the paired differences with every seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from scipy import stats

from envs.lockstep import ProtocolConfig
from evaluation import statistics
from evaluation.playing import Runs

# Okabe and Ito's palette, which the colour-blind can tell apart; black is left for the text.
POLICY_COLOURS = ("#D55E00", "#CC79A7")
STRATEGY_COLOURS = ("#0072B2", "#009E73", "#E69F00", "#56B4E9", "#F0E442")
RANDOM_COLOUR = "#7F7F7F"
DASHES = ("-", "--", "-.", ":")  # tell apart those that come after the palette's end


def _styles(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Line style by strategy; policies are drawn thicker, random grey and dashed."""
    styles: dict[str, dict[str, Any]] = {}
    policies, others = list(summary["policies"]), 0
    for name in summary["aulc"]:
        if name in policies:
            i = policies.index(name)
            colours, thick = POLICY_COLOURS, {"linewidth": 2.4, "zorder": 4}
        elif name == "random":
            styles[name] = {"color": RANDOM_COLOUR, "linestyle": "--", "linewidth": 1.6, "zorder": 2}
            continue
        else:
            i, others = others, others + 1
            colours, thick = STRATEGY_COLOURS, {"linewidth": 1.6, "zorder": 3}
        dash = DASHES[i // len(colours) % len(DASHES)]
        styles[name] = {"color": colours[i % len(colours)], "linestyle": dash, **thick}
    return styles


def draw_picture(summary: dict[str, Any], runs: dict[str, Runs], protocol: ProtocolConfig, path: Path) -> None:
    """Write the picture as PNG."""
    styles = _styles(summary)
    shape = {"figsize": (12, 4.8), "width_ratios": (1.25, 1), "layout": "constrained"}
    figure, (left, right) = plt.subplots(1, 2, **shape)
    try:
        _curves(left, runs, protocol, styles)
        _differences(right, summary, runs, styles)
        figure.suptitle(f"{summary['dataset']}: {summary['seeds']} paired seeds", fontsize=12)
        figure.savefig(path, dpi=150, format="png")
    finally:
        plt.close(figure)


def _curves(ax: Axes, runs: dict[str, Runs], protocol: ProtocolConfig, styles: dict[str, dict]) -> None:
    """Mean test accuracy by number of labels, with the 95 % band of the mean."""
    for name, r in runs.items():
        seeds, rounds = r.accuracy.shape
        labels = protocol.initial_labels + protocol.batch_size * np.arange(rounds)
        mean = 100 * r.accuracy.mean(0)
        if seeds > 1:
            half = 100 * stats.t.ppf(0.975, seeds - 1) * r.accuracy.std(0, ddof=1) / np.sqrt(seeds)
            colour = styles[name]["color"]
            ax.fill_between(labels, mean - half, mean + half, color=colour, alpha=0.12, linewidth=0)
        ax.plot(labels, mean, label=name, **styles[name])
    ax.set_xlim(labels[0], labels[-1])
    ax.set_xlabel("labels")
    ax.set_ylabel("test accuracy (%)")
    ax.set_title("Learning curves: mean and its 95 % interval", fontsize=10)
    best_first = sorted(runs, key=lambda name: -statistics.aulc(runs[name].accuracy).mean())
    handles = dict(zip(runs, ax.get_lines(), strict=True))
    ax.legend([handles[n] for n in best_first], best_first, loc="lower right", title="largest area first")
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def _differences(ax: Axes, summary: dict[str, Any], runs: dict[str, Runs], styles: dict[str, dict]) -> None:
    """Paired AULC differences: mean and 95 % interval, and each seed as a faint dot."""
    policies = list(summary["policies"])
    # Without a policy each strategy is compared with random, and the row is the strategy's.
    keys = [k.split("_vs_", 1) for k in summary["paired"]]
    keys = [k for k in keys if not policies or k[0] == policies[0]]
    rng = np.random.default_rng(0)
    for row, (first, second) in enumerate(keys):
        d = 100 * (statistics.aulc(runs[first].accuracy) - statistics.aulc(runs[second].accuracy))
        colour = styles[second if policies else first]["color"]
        jitter = row + rng.uniform(-0.22, 0.22, len(d))
        ax.plot(d, jitter, "o", color=colour, alpha=0.3, markersize=4, markeredgewidth=0)
        ends = statistics.interval(d)
        if ends is not None:
            ax.plot(ends, [row, row], color="black", linewidth=1.6, solid_capstyle="butt")
        ax.plot(d.mean(), row, "o", color=colour, markeredgecolor="black", markersize=7)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(keys)), [second if policies else first for first, second in keys])
    ax.set_ylim(len(keys) - 0.5 if keys else 0.5, -0.5)
    what = f"{policies[0]} minus strategy" if policies else "strategy minus random"
    ax.set_xlabel(f"AULC difference (points), {what}")
    ax.set_title("Paired differences: mean, 95 % interval, every seed", fontsize=10)
    ax.grid(alpha=0.25, axis="x")
    ax.spines[["top", "right", "left"]].set_visible(False)
