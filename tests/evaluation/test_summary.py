"""Records of what a comparison found: who is looked up, and the JSON that is made of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from evaluation import statistics
from evaluation.report.tables import text_table
from evaluation.report.write import write_report
from evaluation.runs import Played
from evaluation.summarise import summarise, summarise_all
from evaluation.summary import Comparison, Need, Summary, read_summary
from tests.support.fabricated import make_played, make_pool

GAINS = {"learned": 0.1, "other": 0.09, "random": 0.0, "margin": 0.05, "worse": -0.08}
BEFORE = Path(__file__).parent / "summary_before.json"  # written before there were records


@pytest.fixture(scope="module")
def played() -> Played:
    return make_played(make_pool(), GAINS, ("learned", "other"), seeds=12)


@pytest.fixture(scope="module")
def summary(played: Played) -> Summary:
    return summarise(played)


def several() -> list[Played]:
    """Three data sets, two of one name, with other modalities."""
    gains = {"random": 0.0, "margin": 0.05, "badge": 0.04}
    pools = [make_pool("toy"), make_pool("toy", ("sound",)), make_pool("Other/set", ("sound", "text", "touch"))]
    return [make_played(pool, gains) for pool in pools]


def written(comparison: Comparison, folder: Path) -> Path:
    (folder / "summary.json").write_text(json.dumps(comparison.to_json(), allow_nan=False))
    return folder / "summary.json"


def test_one_data_set(played: Played, summary: Summary) -> None:
    assert (summary.dataset, summary.seeds, summary.protocol.budget) == ("toy", 12, 30)
    assert (summary.judged, summary.labels_used) == ("learned", 123)
    pairs = {(a, b) for a in ("learned", "other") for b in ("random", "margin", "worse")} | {("learned", "other")}
    assert {(p.first, p.second) for p in summary.pairs} == pairs
    r, figures = played.runs["margin"], summary.strategies["margin"]
    assert figures.aulc.mean == pytest.approx(r.accuracy[:, 1:].mean())
    assert figures.modality_gap == pytest.approx(0.05)
    assert figures.weakest_modality == figures.balance["text"] < figures.balance["picture"]
    assert figures.shapley["text"] == pytest.approx(r.shapley[:, 1:, 1].mean())
    assert summary.all_labels_accuracy.mean == pytest.approx(0.85)
    memory = {name: f.peak_memory for name, f in summary.strategies.items()}
    assert memory == dict.fromkeys(played.runs, 2.5e6) | {"learned": None}
    seconds = figures.seconds
    assert seconds.picking == pytest.approx(np.median(r.seconds_picking[:, 1:]))
    assert seconds.selecting == pytest.approx(seconds.inference + seconds.scoring + seconds.picking)
    assert summary.penalty.strategies == list(played.runs)


def test_label_saving_states_what_is_not_reached(played: Played, summary: Summary) -> None:
    means = {n: r.accuracy.mean(0) for n, r in played.runs.items()}
    target, needs = summary.label_saving.target, summary.label_saving.strategies
    assert target == pytest.approx(means["random"][-1])
    labels = 10 + 5 * int((means["learned"] >= target).argmax())
    assert needs["learned"] == Need(labels, pytest.approx(1 - labels / 30))
    assert needs["random"] == Need(30, 0)
    assert needs["worse"] == Need(None, None)


def test_across_data_sets() -> None:
    comparison = summarise_all(several())
    assert list(comparison.datasets) == ["toy", "toy-2", "Other/set"]
    across = comparison.across
    assert across.mean_rank == {"random": 3.0, "margin": 1.0, "badge": 2.0}
    matrices = [np.array(s.penalty.matrix) for s in comparison.datasets.values()]
    assert np.array(across.penalty.matrix) == pytest.approx(sum(matrices))
    assert across.penalty.average["random"] == pytest.approx(np.mean(across.penalty.matrix, 0)[0])
    assert across.verdicts["margin", "random"] == {"better": 3}
    assert all(row[-1] <= 1 for row in across.profile.share.values())
    assert sum(row[0] for row in across.profile.share.values()) == pytest.approx(1, abs=1e-3)


def test_strategies_that_not_every_data_set_has() -> None:
    first = make_played(make_pool(), {"random": 0.0, "margin": 0.05})
    second = make_played(make_pool("b"), {"badge": 0.1, "margin": 0.05})
    comparison = summarise_all([first, second])
    assert comparison.across.strategies == ["margin"]
    assert comparison.across.penalty is None
    assert "badge" in text_table(comparison)


def test_names_that_hold_the_separator_do_not_collide(tmp_path: Path) -> None:
    # "a" minus "b_vs_c" and "a_vs_b" minus "c" have one key, were it glued.
    p = make_played(make_pool(), {"a": 0.1, "a_vs_b": 0.05, "b_vs_c": 0.0, "c": -0.1, "random": 0.0}, ("a", "a_vs_b"))
    summary = summarise(p)
    assert len({(pair.first, pair.second) for pair in summary.pairs}) == len(summary.pairs) == 7
    area = {name: statistics.aulc(runs.accuracy) for name, runs in p.runs.items()}
    for first, second in (("a", "b_vs_c"), ("a_vs_b", "c")):
        pair = summary.pair(first, second)
        assert (pair.first, pair.second) == (first, second)
        assert pair.mean == pytest.approx((area[first] - area[second]).mean())
    assert summary.judged_pairs()["b_vs_c"] == summary.pair("a", "b_vs_c")
    assert summary.pair("a_vs_b", "a") is None
    comparison = write_report([p, dataclasses.replace(p, pool=make_pool("again"))], tmp_path)
    rows = comparison.to_json()["datasets"]["toy"]["paired"]
    assert rows["a_vs_b_vs_c"]["mean"] == summary.pair("a", "b_vs_c").mean
    assert rows["a_vs_b_vs_c-2"]["mean"] == summary.pair("a_vs_b", "c").mean
    assert read_summary(tmp_path / "summary.json") == comparison
    assert "| a_vs_b − c |" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize("seeds", [1, 8])
def test_a_summary_that_is_read_again_is_the_same(seeds: int, tmp_path: Path) -> None:
    runs = [
        make_played(make_pool(), GAINS, ("learned", "other"), seeds),
        make_played(make_pool(), {"random": 0}, seeds=1),
    ]
    for part in ([runs[0]], [runs[1]], runs, several()):
        comparison = summarise_all(part)
        assert read_summary(written(comparison, tmp_path)) == comparison


def test_the_file_is_as_it_was_before_there_were_records() -> None:
    """Keys and their order to the letter; figures to nine digits, since the last depends on the processor."""
    before = json.loads(BEFORE.read_text())
    gains = {"learned": 0.1, "other": 0.08, "random": 0.0, "margin": 0.05, "worse": -0.08}
    pools = [make_pool("toy"), make_pool("toy", ("sound",), text=np.array(["t"] * 60))]
    facts = {"dataset_fingerprint": "abc"}
    played = [make_played(pool, gains, ("learned", "other"), 7, facts=facts) for pool in pools]
    now = summarise_all(played).to_json()
    assert leaves(now).keys() == leaves(before).keys()
    assert list(leaves(now)) == list(leaves(before))
    for place, value in leaves(before).items():
        found = leaves(now)[place]
        assert found == (pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value), place
    assert read_summary(BEFORE).to_json() == before


def leaves(value: object, place: str = "") -> dict[str, object]:
    """What nested mappings and lists hold, by place, in order; what is empty stands for itself."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {inner: leaf for k, v in items for inner, leaf in leaves(v, f"{place}/{k}").items()}
    return found or {place: value}
