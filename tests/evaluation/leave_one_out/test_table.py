"""The table of targets, on figures that are known."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.leave_one_out.result import Judged, LeaveOneOut, OffZero, Origin, judge_targets
from evaluation.leave_one_out.table import markdown, text
from evaluation.statistics import MeanInterval, Pair
from evaluation.summary import LabelSaving, Need, Seconds, StrategyFigures, Summary
from tests.support.fabricated import PROTOCOL


def interval(mean: float, half: float) -> MeanInterval:
    return MeanInterval(mean=mean, ci95=(mean - half, mean + half))


def summary(learned: float, minus: dict[str, float], half: float, saved: float | None) -> Summary:
    """As a comparison gives it: intervals of this half width, all strategies' weakest modality at .1, .2, ..."""
    areas = {"learned": learned} | {name: learned - d for name, d in minus.items()}
    nothing = interval(0.0, 0.0)
    return Summary(
        dataset="it",
        seeds=20,
        protocol=PROTOCOL,
        strategies={
            name: StrategyFigures(
                aulc=interval(area, 0.01),
                final_accuracy=nothing,
                soft_aulc=nothing,
                hard_third=nothing,
                balance={"a": 1.0, "b": 0.1 * (i + 1)},
                shapley={},
                modality_gap=0.0,
                class_coverage=1.0,
                seconds=Seconds(None, None, None, None),
                peak_memory=None,
            )
            for i, (name, area) in enumerate(areas.items())
        },
        pairs=[
            Pair(first="learned", second=n, mean=d, ci95=(d - half, d + half), p=0.5, p_holm=1.0, verdict="better")
            for n, d in minus.items()
        ],
        all_labels_accuracy=None,
        label_saving=LabelSaving(0.5, {"learned": Need(20, saved)}) if "random" in minus else None,
        round_zero_accuracy=0.2,
        penalty=None,
        facts={"policies": {"learned": {}}},
    )


def judged(summaries: dict[str, Summary]) -> Judged:
    return judge_targets(summaries, dict.fromkeys(summaries, Origin("it", None, ["one"], 100)))


def alone(judged: Judged) -> LeaveOneOut:
    return LeaveOneOut(0, 1, {"20+10x10": judged})


def test_the_table_by_hand():
    result = judged({
        "a": summary(0.6, {"random": 0.03, "badge": 0.01, "bmmal": 0.02}, 0.015, 0.2),
        "b": summary(0.5, {"random": 0.05, "badge": 0.03, "bmmal": -0.02}, 0.015, None),
        "c": summary(0.7, {"random": 0.01, "badge": -0.04, "bmmal": 0.03}, 0.015, -0.1),
    })  # fmt: skip
    assert [target.best_fixed for target in result.targets.values()] == ["badge", "bmmal", "badge"]
    over = result.over_targets
    assert over.learned_minus["random"].mean == pytest.approx(0.03)
    half = 4.302653 * 0.02 / np.sqrt(3)  # Student's t with 2 degrees of freedom; standard deviation .02
    assert over.learned_minus["random"].ci95 == pytest.approx((0.03 - half, 0.03 + half), rel=1e-6)
    assert over.learned_minus["best fixed"].mean == pytest.approx((0.01 - 0.02 - 0.04) / 3)
    assert over.intervals_off_zero == {"badge": OffZero(1, 1, 3), "random": OffZero(2, 0, 3)}
    assert over.median_label_saving == pytest.approx(-0.1)  # not reached on b: below all
    weakest = {name: row.mean for name, row in over.weakest_modality.items()}
    assert weakest == pytest.approx({"learned": 0.1, "badge": 0.3, "bmmal": 0.4})
    table = markdown(alone(result))
    assert "| b | 50.00 ± 1.00 | +5.00 [+3.50, +6.50] ▲ | +3.00 [+1.50, +4.50] ▲ | -2.00 [-3.50, -0.50] ▼ |" in table
    assert "| a | 10.0 | 30.0 | 40.0 | +20 % |" in table
    assert "learned minus badge is above 0 on 1 of 3 targets and below 0 on 1." in table
    assert "## 20 + 10 x 10 labels" in table
    assert "one policy, trained on all the other sources" in table


def test_the_median_may_be_unreached_and_random_may_be_left_out():
    minus = {"random": 0.0, "badge": 0.0}
    savings = (0.3, None, None)
    unreached = judged({f"t{i}": summary(0.5, minus, 0.1, saved) for i, saved in enumerate(savings)})
    assert unreached.over_targets.median_label_saving is None
    assert "median –" in markdown(alone(unreached))
    without = judged({f"t{i}": summary(0.5, {"badge": 0.0}, 0.1, None) for i in range(3)})
    assert list(without.over_targets.intervals_off_zero) == ["badge"]


def test_the_terminal_gets_all_columns_within_its_width():
    minus = {name: 0.01 for name in ("random", "margin", "badge", "bmmal", "hand_tuned", "typiclust", "coreset")}
    result = judged({f"a-data-set-of-a-long-name-{i}": summary(0.5, minus, 0.02, 0.1) for i in range(3)})
    shown = text(alone(result))
    assert max(map(len, shown.splitlines())) <= 100
    for column in (*(f"− {name}" for name in minus), "− best fixed", "weakest: bmmal", "labels saved"):
        assert column in shown
