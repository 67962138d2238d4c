"""A whole comparison on a tiny pool, the pairing check, and refused input."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from envs.errors import ConfigError, DataError, PolicyError, RLMBAError, StrategyError
from envs.lockstep import ProtocolConfig, draw_start
from envs.preparation import prepare
from envs.roles import evaluation_roles, partition
from envs.sources import open_dataset
from envs.task_model import TaskModelConfig
from evaluation.comparison import CompareConfig, _Entrant, _origin_notes, compare
from evaluation.playing import Runs, check_pairing, from_arrays, play, to_arrays
from evaluation.report import text_table
from learners.runtime import local_ray
from policies.selector import PolicyCard, Selector, SelectorConfig, save_policy
from policies.strategies import get_strategy

DATASET = "synthetic:samples=400,classes=4,modalities=2,dim=8,seed=1"
PROTOCOL = ProtocolConfig(initial_labels=8, batch_size=4, rounds=2)
MODEL = TaskModelConfig(hidden=8, steps=8)
STRATEGIES = ("random", "margin", "badge")


def config(**changes) -> CompareConfig:
    settings = {"seeds": 3, "strategies": STRATEGIES, "protocol": PROTOCOL, "model": MODEL}
    return CompareConfig(**({"dataset": DATASET} | settings | changes))


def quiet(*_: object, **__: object) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def one_worker() -> Iterator[None]:
    with local_ray(1):
        yield


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, str], ...]:
    folder = tmp_path_factory.mktemp("policies")
    fingerprint = open_dataset(DATASET).fingerprint
    card = PolicyCard(trained_on=[{"name": "synthetic", "fingerprint": fingerprint}], labels_used=123)
    chosen = []
    for name, initial in (("learned", "hand_tuned"), ("other", "badge")):
        save_policy(Selector(SelectorConfig(features=("margin", "density"), initial=initial)), card, folder / name)
        chosen.append((name, str(folder / name)))
    return tuple(chosen)


@pytest.fixture(scope="module")
def report(one_worker: None, policies: tuple, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path, list]:
    """One comparison for most tests: two policies, three strategies, three seeds."""
    out, lines = tmp_path_factory.mktemp("out") / "deep" / "folder", []
    return compare(config(policies=policies), out, lines.append), out, lines


@pytest.fixture(scope="module")
def runs() -> dict[str, Runs]:
    """Two strategies played in this process."""
    pool = open_dataset(DATASET)
    parts = partition(pool)
    data = from_arrays(to_arrays(prepare(pool, parts.evaluation, parts.test, MODEL.projection_dim)))
    starts = [draw_start(evaluation_roles(pool, seed), seed, PROTOCOL) for seed in (7, 8, 9)]
    return {n: play(data, starts, n, get_strategy(n), PROTOCOL, MODEL) for n in ("random", "margin")}


def without_times(summary: dict) -> dict:
    return {k: v for k, v in summary.items() if not k.startswith("seconds")}


def test_summary_has_the_promised_shape(report: tuple) -> None:
    summary, out, _ = report
    names = ["learned", "other", *STRATEGIES]
    assert summary == json.loads((out / "summary.json").read_text())
    assert (summary["dataset"], summary["seeds"], summary["budget"]) == ("synthetic", 3, 16)
    assert summary["labels_used_to_train_policy"] == 123
    for key in ("aulc", "balance", "weakest_modality", "final_accuracy", "hard_third"):
        assert list(summary[key]) == names
    for row in summary["aulc"].values():
        assert set(row) == {"mean", "ci95"}
        assert 0 <= row["ci95"][0] <= row["mean"] <= row["ci95"][1] <= 1.2
    for name, row in summary["balance"].items():
        assert set(row) == {"m0", "m1"}
        assert min(row.values()) == summary["weakest_modality"][name]
    expected = {f"{p}_vs_{s}" for p in ("learned", "other") for s in STRATEGIES} | {"learned_vs_other"}
    assert set(summary["paired"]) == expected
    for row in summary["paired"].values():
        assert set(row) == {"mean", "ci95", "p", "p_holm", "verdict"}
        assert (row["p"], row["verdict"]) == (None, "inconclusive")
    assert {"protocol", "model", "versions", "config_hash", "policies", "pairing"} <= set(summary)
    assert sorted(p.name for p in out.iterdir()) == [
        "curves.png",
        "rounds.parquet",
        "summary.json",
        "table.md",
    ]


def test_rounds_hold_every_model_and_every_pick(report: tuple) -> None:
    summary, out, _ = report
    rows = pq.read_table(out / "rounds.parquet").to_pylist()
    pool = open_dataset(DATASET)
    allowed = set(pool.ids[partition(pool).evaluation])
    assert len(rows) == 5 * 3 * 3  # strategies, seeds, rounds
    bought: dict[tuple, list[str]] = {}
    for row in rows:
        ids = bought.setdefault((row["strategy"], row["seed"]), [])
        ids += row["sample_ids"]
        assert len(ids) == len(set(ids)) == row["labels"]
        assert set(ids) <= allowed
        assert row["weight_m0"] + row["weight_m1"] == pytest.approx(1, abs=1e-5)
        classes = set(pool.labels[np.isin(pool.ids, ids)])
        assert row["class_coverage"] == pytest.approx(len(classes) / 4)
        assert (row["seconds_select"] is None) == (row["round"] == 0)
    for name in summary["aulc"]:
        mine = [r["accuracy"] for r in rows if r["strategy"] == name and r["round"] > 0]
        assert summary["aulc"][name]["mean"] == pytest.approx(np.mean(mine))
    for seed in {r["seed"] for r in rows}:  # round 0 is shared
        first = [r for r in rows if r["seed"] == seed and r["round"] == 0]
        assert len({(r["accuracy"], r["soft_accuracy"], tuple(r["sample_ids"])) for r in first}) == 1


def test_messages_and_tables(report: tuple) -> None:
    summary, out, lines = report
    assert any("'learned' was trained on 'synthetic'" in line and "evaluation half" in line for line in lines)
    assert any("5/5 chunks" in line for line in lines)
    text = text_table(summary)
    assert max(map(len, text.splitlines())) <= 100
    assert all(name in text for name in summary["aulc"])
    assert "too few for any test" in text
    markdown = (out / "table.md").read_text()
    assert "| badge |" in markdown
    assert "other − random" in markdown


def test_twice_the_same(report: tuple, policies: tuple, tmp_path: Path) -> None:
    first, out, _ = report
    again = compare(config(policies=policies), tmp_path, quiet)
    assert without_times(again) == without_times(first)
    tables = [pq.read_table(p / "rounds.parquet").drop_columns(["seconds_select", "seconds_train"])
              for p in (out, tmp_path)]  # fmt: skip
    assert tables[0].equals(tables[1])


def test_workers_play_what_this_process_plays(report: tuple, one_worker: None, tmp_path: Path) -> None:
    pool = open_dataset(DATASET)
    parts = partition(pool)
    data = prepare(pool, parts.evaluation, parts.test, MODEL.projection_dim)
    starts = [draw_start(evaluation_roles(pool, s), s, PROTOCOL) for s in (10_000, 10_001, 10_002)]
    here = play(data, starts, "badge", get_strategy("badge"), PROTOCOL, MODEL)
    there = [r for r in pq.read_table(report[1] / "rounds.parquet").to_pylist() if r["strategy"] == "badge"]
    assert [r["accuracy"] for r in there] == pytest.approx(here.accuracy.ravel().tolist(), abs=0.011)
    assert there[0]["sample_ids"] == pool.ids[here.initial[0]].tolist()


def test_one_seed_without_a_policy(one_worker: None, tmp_path: Path) -> None:
    summary = compare(config(seeds=1), tmp_path, quiet)
    assert summary["aulc"]["random"]["ci95"] is None
    assert set(summary["paired"]) == {"margin_vs_random", "badge_vs_random"}
    assert summary["paired"]["badge_vs_random"]["ci95"] is None
    assert summary["labels_used_to_train_policy"] is None
    assert "inconclusive" in text_table(summary)


def test_missing_modalities(one_worker: None, tmp_path: Path) -> None:
    summary = compare(config(dataset=DATASET + ",missing=0.2", seeds=1, strategies=("random",)), tmp_path, quiet)
    assert summary["paired"] == {}
    assert all(0 <= v <= 1 for v in summary["balance"]["random"].values())


@pytest.mark.parametrize(
    ("trained_on", "says"),
    [
        ([{"name": "synthetic", "fingerprint": "other"}], "may have been among its training rows"),
        ([{"name": "emoji", "fingerprint": "other"}], "trained on emoji, not on 'synthetic'"),
        ([], "does not say"),
    ],
)
def test_where_a_policy_comes_from_is_said(trained_on: list[dict], says: str) -> None:
    entrant = _Entrant(Path(), None, PolicyCard(trained_on=trained_on))
    assert says in _origin_notes(open_dataset(DATASET), {"learned": entrant})[0]


@pytest.mark.parametrize(("field", "says"), [("starts", "initial labels"), ("models", "round-zero model")])
def test_unpaired_runs_are_refused(runs: dict[str, Runs], field: str, says: str) -> None:
    check_pairing(runs)
    changed = getattr(runs["margin"], field).copy()
    changed[1] = "0" * 16
    tampered = runs | {"margin": dataclasses.replace(runs["margin"], **{field: changed})}
    with pytest.raises(RLMBAError, match=f"Unpaired.*{says}.*seed 8"):
        check_pairing(tampered)


def test_other_seeds_are_refused(runs: dict[str, Runs]) -> None:
    shifted = dataclasses.replace(runs["margin"], seeds=runs["margin"].seeds + 1)
    with pytest.raises(RLMBAError, match="Unpaired"):
        check_pairing(runs | {"margin": shifted})
    fewer = Runs(*(getattr(runs["margin"], f.name)[:2] for f in dataclasses.fields(Runs)))
    with pytest.raises(RLMBAError, match=r"3 seeds .* 2"):
        check_pairing(runs | {"margin": fewer})


def test_another_start_has_another_hash(runs: dict[str, Runs]) -> None:
    r = runs["random"]
    assert len(set(r.starts)) == len(set(r.models)) == 3


@pytest.mark.parametrize(
    "picks", [torch.zeros(3, 4, dtype=torch.int64), torch.arange(9).reshape(3, 3), torch.full((3, 4), 9_999)]
)
def test_a_strategy_that_picks_badly_is_named(picks: torch.Tensor) -> None:
    pool = open_dataset(DATASET)
    data = prepare(pool, partition(pool).evaluation, partition(pool).test)
    starts = [draw_start(evaluation_roles(pool, seed), seed, PROTOCOL) for seed in (1, 2, 3)]
    with pytest.raises(StrategyError, match="'bad'"):
        play(data, starts, "bad", lambda *_: picks, PROTOCOL, MODEL)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"seeds": 0}, ConfigError, "seeds is 0"),
        ({"workers": 0}, ConfigError, "workers is 0"),
        ({"first_seed": -1}, ConfigError, "first_seed is -1"),
        ({"strategies": ("random", "badgr")}, StrategyError, "badge"),
        ({"strategies": ("random", "random")}, ConfigError, "'random' is named twice"),
        ({"policies": (("badge", "x"),)}, ConfigError, "'badge' is named twice"),
        ({"strategies": ()}, ConfigError, "Nothing to compare"),
        ({"dataset": "digitz"}, DataError, "digits"),
        ({"policies": (("learned", "nowhere"),)}, PolicyError, "nowhere"),
        ({"protocol": ProtocolConfig(rounds=100)}, ConfigError, "above the 1.. pool rows"),
    ],
)
def test_bad_input_is_refused_before_any_work(changes: dict, error: type, says: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(error, match=says):
        compare(config(**changes), out, quiet)
    assert not out.exists()


def test_a_policy_with_unknown_features_is_refused(policies: tuple, tmp_path: Path) -> None:
    folder = Path(policies[0][1])
    card = json.loads((folder / "policy.json").read_text())
    card["selector"]["features"] = ["margin", "smell"]
    (tmp_path / "policy.json").write_text(json.dumps(card))
    (tmp_path / "policy.safetensors").write_bytes((folder / "policy.safetensors").read_bytes())
    with pytest.raises(PolicyError, match="smell"):
        compare(config(policies=(("learned", str(tmp_path)),)), tmp_path / "out", quiet)


def test_an_output_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="Cannot write into"):
        compare(config(), tmp_path / "out", quiet)
