"""A whole comparison on a tiny pool, the pairing check, and refused input."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from envs.errors import ConfigError, DataError, PolicyError, StrategyError
from envs.pools.partition import partition
from envs.simulation import ProtocolConfig, Simulation
from envs.source import evaluation_starts, evaluation_trainer
from envs.sources import open_dataset
from evaluation.comparison import _enter_policies, compare
from evaluation.playing import play
from evaluation.provenance import origin_notes
from evaluation.report.tables import text_table
from evaluation.summary import Comparison
from policies.policy_file import PolicyCard, save_policy
from policies.selector import SelectorConfig
from policies.start import initial_selector
from policies.strategies import STRATEGIES as REGISTERED
from policies.strategies import get_strategy
from tests.support.comparison import (
    DATASET,
    MODEL,
    PROTOCOL,
    STRATEGIES,
    config,
    count_already_there,
    files,
    quiet,
    rounds,
    without_times,
)


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, str], ...]:
    folder = tmp_path_factory.mktemp("policies")
    fingerprint = open_dataset(DATASET).fingerprint
    card = PolicyCard(trained_on=[{"name": "synthetic", "fingerprint": fingerprint}], labels_used=123)
    chosen = []
    for name, initial in (("learned", "hand_tuned"), ("other", "badge")):
        save_policy(
            initial_selector(SelectorConfig(features=("margin", "density"), initial=initial)), card, folder / name
        )
        chosen.append((name, str(folder / name)))
    return tuple(chosen)


@pytest.fixture(scope="module")
def report(one_ray: None, policies: tuple, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path, list]:
    """One comparison for most tests: two policies, three strategies, three seeds."""
    out, lines = tmp_path_factory.mktemp("out") / "deep" / "folder", []
    return compare(config(policies=policies), out, lines.append), out, lines


def test_summary_has_the_promised_shape(report: tuple) -> None:
    comparison, out, _ = report
    names = ["learned", "other", *STRATEGIES]
    summary = json.loads((out / "summary.json").read_text())
    assert summary == comparison.to_json()
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
    assert {"protocol", "model", "versions", "config_hash", "policies", "pairing", "hardware", "code"} <= set(summary)
    assert summary["dataset_given"] == DATASET
    assert summary["hardware"]["cores"] == os.cpu_count()
    assert {"results", "rounds.parquet", "summary.json", "table.md"} <= {p.name for p in out.iterdir()}
    assert len(files(out)) == 5


def test_rounds_hold_every_model_and_every_pick(report: tuple) -> None:
    comparison, out, _ = report
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
        for kind in ("inference", "scoring", "picking", "train"):
            assert (row[f"seconds_{kind}"] is None) == (row["round"] == 0)
    for name, figures in comparison.datasets["synthetic"].strategies.items():
        mine = [r["accuracy"] for r in rows if r["strategy"] == name and r["round"] > 0]
        assert figures.aulc.mean == pytest.approx(np.mean(mine))
    for seed in {r["seed"] for r in rows}:  # round 0 is shared
        first = [r for r in rows if r["seed"] == seed and r["round"] == 0]
        assert len({(r["accuracy"], r["soft_accuracy"], tuple(r["sample_ids"])) for r in first}) == 1


def test_messages_and_tables(report: tuple) -> None:
    comparison, out, lines = report
    assert any("'learned' was trained on 'synthetic'" in line and "evaluation half" in line for line in lines)
    assert any("5/5 chunks" in line for line in lines)
    text = text_table(comparison)
    assert max(map(len, text.splitlines())) <= 100
    assert all(name in text for name in comparison.datasets["synthetic"].strategies)
    assert "too few for any test" in text
    markdown = (out / "table.md").read_text()
    assert "| badge |" in markdown
    assert "other − random" in markdown


@pytest.mark.usefixtures("tables_only")
def test_twice_the_same(report: tuple, policies: tuple, tmp_path: Path) -> None:
    first, out, _ = report
    again = compare(config(policies=policies), tmp_path, quiet)
    assert without_times(again.to_json()) == without_times(first.to_json())
    assert rounds(tmp_path).equals(rounds(out))
    assert files(tmp_path) == files(out)


def test_workers_play_what_this_process_plays(report: tuple, one_ray: None, tmp_path: Path) -> None:
    pool = open_dataset(DATASET)
    starts = evaluation_starts(pool, PROTOCOL, (10_000, 10_001, 10_002))
    here = play(Simulation(evaluation_trainer(pool, MODEL), PROTOCOL), starts, "badge", get_strategy("badge"))
    there = [r for r in pq.read_table(report[1] / "rounds.parquet").to_pylist() if r["strategy"] == "badge"]
    assert [r["accuracy"] for r in there] == pytest.approx(here.accuracy.ravel().tolist(), abs=0.011)
    assert there[0]["sample_ids"] == pool.ids[here.initial[0]].tolist()


@pytest.mark.usefixtures("tables_only")
def test_one_seed_without_a_policy(one_ray: None, tmp_path: Path) -> None:
    comparison = compare(config(seeds=1), tmp_path, quiet)
    summary = comparison.datasets["synthetic"]
    assert summary.strategies["random"].aulc.ci95 is None
    assert [(p.first, p.second) for p in summary.pairs] == [("margin", "random"), ("badge", "random")]
    assert summary.pair("badge", "random").ci95 is None
    assert summary.labels_used is None
    assert "inconclusive" in text_table(comparison)


@pytest.mark.usefixtures("tables_only")
def test_missing_modalities(one_ray: None, tmp_path: Path) -> None:
    missing = config(datasets=(DATASET + ",missing=0.2",), seeds=1, strategies=("random",))
    (summary,) = compare(missing, tmp_path, quiet).datasets.values()
    assert summary.pairs == []
    assert all(0 <= v <= 1 for v in summary.strategies["random"].balance.values())


@pytest.mark.parametrize(
    ("trained_on", "says"),
    [
        ([{"name": "synthetic", "fingerprint": "other"}], "may have been among its training rows"),
        ([{"name": "emoji", "fingerprint": "other"}], "trained on emoji, not on 'synthetic'"),
        ([], "does not say"),
    ],
)
def test_where_a_policy_comes_from_is_said(trained_on: list[dict], says: str) -> None:
    assert says in origin_notes(open_dataset(DATASET), {"learned": PolicyCard(trained_on=trained_on)})[0]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"seeds": 0}, ConfigError, "seeds is 0"),
        ({"workers": 0}, ConfigError, "workers is 0"),
        ({"first_seed": -1}, ConfigError, "first_seed is -1"),
        ({"strategies": ("random", "badgr")}, StrategyError, "badge"),
        ({"strategies": ("random", "random")}, ConfigError, "'random' is named twice"),
        ({"policies": (("badge", "x"),)}, ConfigError, "'badge' is named twice"),
        ({"policies": (("a\nb", "x"),)}, ConfigError, "is no name for tables"),
        ({"titles": ("a\u2028b",)}, ConfigError, "is no name for tables"),
        ({"strategies": ()}, ConfigError, "Nothing to compare"),
        ({"datasets": ()}, ConfigError, "at least one data set"),
        ({"datasets": (DATASET, "digitz")}, DataError, "digits"),
        ({"datasets": (DATASET, DATASET.replace(",seed", ",noise=0.2,seed"), DATASET)}, ConfigError, "name it once"),
        ({"strategies": ("all", "badge")}, ConfigError, "give it alone"),
        ({"policies": (("learned", "nowhere"),)}, PolicyError, "nowhere"),
        ({"protocol": ProtocolConfig(rounds=100)}, ConfigError, "above the 1.. pool rows"),
        ({"datasets": ("digits", DATASET), "protocol": ProtocolConfig(rounds=20)}, ConfigError, "rows of 'synthetic'"),
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


def test_every_data_set_may_have_its_own_policy(tmp_path: Path) -> None:
    for dataset, initial in (("emoji", "badge"), ("watch", "zero")):
        selector = initial_selector(SelectorConfig(features=("margin",), initial=initial))
        save_policy(selector, PolicyCard(), tmp_path / dataset / "trained")
    chosen = config(policies=(("learned", f"{tmp_path}/{{dataset}}/trained"),))
    emoji, watch = (_enter_policies(chosen, dataset)["learned"] for dataset in ("emoji", "watch"))
    assert emoji.description != watch.description
    assert emoji.facts["path"] == str(tmp_path / "emoji" / "trained")
    with pytest.raises(PolicyError, match=re.escape(f"{tmp_path}/digits/trained")):
        _enter_policies(chosen, "digits")


def test_an_output_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="Cannot write into"):
        compare(config(), tmp_path / "out", quiet)


# Several data sets, and what is kept


@pytest.mark.usefixtures("tables_only")
def test_what_is_missing_is_computed_and_the_rest_is_read(one_ray: None, tmp_path: Path) -> None:
    other = DATASET.replace("seed=1", "seed=2")

    def run(datasets: tuple[str, ...], seeds: int, strategies: tuple[str, ...], out: Path = tmp_path / "out") -> str:
        lines.clear()
        compare(config(datasets=datasets, seeds=seeds, strategies=strategies), out, lines.append)
        return count_already_there(lines)[0]

    lines: list[str] = []
    assert run((DATASET,), 12, ("random",)) == "2/2 chunks"
    assert run((DATASET,), 20, ("random",)) == "2/2 chunks (1 already there)"  # the second chunk was not full
    assert run((DATASET,), 20, ("random", "badge")) == "4/4 chunks (2 already there)"
    assert run((DATASET, other), 20, ("random", "badge")) == "8/8 chunks (4 already there)"
    kept = files(tmp_path / "out")
    assert len(kept) == 9
    whole = rounds(tmp_path / "out")
    assert run((DATASET, other), 20, ("random", "badge")) == "all 8 chunks were already there"
    assert files(tmp_path / "out") == kept
    assert rounds(tmp_path / "out").equals(whole)
    # Files that are damaged, or not what their name says, are computed again.
    first, second, *others = sorted((tmp_path / "out" / "results").glob("*.npz"))
    # Of other starts: what another strategy played from the same ones is not told apart by the file.
    third = next(file for file in others if np.load(file)["starts"].tolist() != np.load(second)["starts"].tolist())
    first.write_bytes(first.read_bytes()[:-1000])
    shutil.copy(third, second)
    run((DATASET, other), 20, ("random", "badge"))
    assert 1 <= sum("computed again" in line for line in lines) <= 2  # one of the three may be the chunk of 2 seeds
    assert rounds(tmp_path / "out").equals(whole)
    # And none of it makes a difference.
    assert run((DATASET, other), 20, ("random", "badge"), tmp_path / "fresh") == "8/8 chunks"
    assert rounds(tmp_path / "fresh").equals(whole)


def test_all_means_every_registered_strategy() -> None:
    assert config(strategies=("all",)).strategies == tuple(REGISTERED)
