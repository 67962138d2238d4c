"""Policies for data that they never saw: the plan, whole tiny runs, interruptions and refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import ConfigError, TrustError
from envs.pools.partition import evaluation_roles
from envs.sources import open_dataset
from evaluation.leave_one_out.plan import LeaveOneOutConfig, name_sources, plan_trainings
from evaluation.leave_one_out.result import Judged, LeaveOneOut
from evaluation.leave_one_out.run import leave_one_out
from evaluation.leave_one_out.table import markdown, text
from evaluation.summary import read_summary
from learners.settings import TrainConfig, build, merge, parse_overrides
from policies.policy_file import load_policy
from run import main
from tests.support.paths import ROOT
from tests.support.training import last_of_each

RUN = ROOT / "run.py"
FIRST, SECOND, THIRD = (f"synthetic:samples=300,classes=3,modalities=2,dim=6,seed={seed}" for seed in (1, 2, 3))
FAMILY = "synthetic-family:samples=400,classes=3,noise=0.2"
SOURCES = (FIRST, SECOND, FAMILY)
OWN = "6+2x3"  # the budget of these settings
SMALL = [
    "protocol.initial_labels=6",
    "protocol.batch_size=3",
    "protocol.rounds=2",
    "model.steps=5",
    "candidates.per_pick=8",
    "evolution.generations=2",
    "evolution.population=4",
    "evolution.starts=2",
    "starts=5",
]


def config(datasets: tuple[str, ...] = SOURCES, training: dict | None = None, **changes) -> LeaveOneOutConfig:
    base = {"datasets": list(datasets), "algorithm": "evolution", "resources": {"num_env_runners": 0}}
    base |= {"policy": {"initial": "badge"}, "evolution": {"sigma0": 0.5}}  # as the command has it
    settings = merge(merge(parse_overrides(SMALL), base), training or {})
    return LeaveOneOutConfig(
        build(TrainConfig, settings), **({"seeds": 2, "strategies": ("random", "badge")} | changes)
    )


def arguments(out: Path, *extra: str, datasets: tuple[str, ...] = SOURCES) -> list[str]:
    sets = [part for setting in SMALL for part in ("--set", setting)]
    base = ["leave-one-out", "--dataset", ",".join(datasets), "--out", str(out), "--num-env-runners", "0"]
    return last_of_each([*base, *sets, "--seeds", "2", "--strategies", "random,badge", *extra])


def quiet(*_: object, **__: object) -> None:
    """No progress."""


@pytest.fixture(scope="module", autouse=True)
def cheap(one_ray: None) -> Iterator[None]:
    """Reports without pictures and page, which take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.report.write.pictures.draw", lambda *_: ())
        patch.setattr("evaluation.report.write.render_page", lambda *_: "")
        for name in ("recording.save_picture", "recording.write_exported", "telemetry.board.Board.picture"):
            patch.setattr(f"learners.{name}", quiet)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[LeaveOneOut, Path, list[str]]:
    """A run without splits."""
    out, lines = tmp_path_factory.mktemp("leave_one_out") / "out", []
    return leave_one_out(config(), out, lines.append), out, lines


# The plan


@given(st.integers(3, 12), st.integers(1, 8), st.integers(0, 2**31))
def test_halves_are_complementary_and_fair(count, splits, seed):
    names = [f"s{i}" for i in range(count)]
    trainings = plan_trainings(names, seed, 2, splits)
    assert trainings == plan_trainings(names, seed, 2, splits)
    assert len(trainings) == 2 * splits
    for a, b in zip(trainings[::2], trainings[1::2], strict=True):
        assert sorted(a.sources + b.sources) == sorted(names)
        assert {len(a.sources), len(b.sources)} == {count // 2, count - count // 2}
    for name in names:
        assert sum(name in t.sources for t in trainings) == splits
    assert len({t.name for t in trainings}) == len({t.seed for t in trainings}) == 2 * splits
    if count > 6:  # 35 ways and more
        assert len({frozenset(t.sources) for t in trainings}) == 2 * splits


def test_halves_depend_on_the_seed():
    names = [f"s{i}" for i in range(9)]
    assert len({tuple(t.sources for t in plan_trainings(names, seed, 2, 3)) for seed in range(5)}) == 5


@given(st.integers(3, 9), st.integers(1, 4), st.integers(0, 2**31))
def test_without_splits_each_target_has_trainings_on_all_others(count, training_seeds, seed):
    names = [f"s{i}" for i in range(count)]
    trainings = plan_trainings(names, seed, training_seeds, 0)
    assert len({t.name for t in trainings}) == len(trainings) == count * training_seeds
    for target in names:
        mine = [t for t in trainings if target not in t.sources]
        assert [t.seed for t in mine] == list(range(seed, seed + training_seeds))
        assert all(set(t.sources) == set(names) - {target} for t in mine)


def test_sources_get_names_of_their_own(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "my pool.npz"
        np.savez(file, x_v=rng.normal(size=(200, 4)), y=np.arange(200) % 3)
    files = (str(tmp_path / "a" / "my pool.npz"), str(tmp_path / "b" / "my pool.npz"))
    more = ("synthetic-family:seed=3,label_noise=0.2", "synthetic-family:label_noise=0.3", "synthetic-family")
    protocol = config().training.protocol
    sources = name_sources((*more, "emoji", FIRST, *files), protocol)
    assert [s.name for s in sources] == [
        "family-label_noise", "family-label_noise-2", "family", "emoji", "synthetic-pool", "my_pool", "my_pool-2",
    ]  # fmt: skip
    for source in sources:
        assert open_dataset(source.evaluates).fingerprint == source.fingerprint
    assert "label_noise=0.3" in sources[1].evaluates
    assert name_sources(more[::-1], protocol)[-1].evaluates == sources[0].evaluates  # wherever it stands


def test_a_family_is_judged_on_a_pool_that_can_supply_the_budget():
    training = {"protocol": {"initial_labels": 100, "batch_size": 30, "rounds": 12}}  # 460 labels
    (source,) = name_sources(("synthetic-family",), config(training=training).training.protocol)
    assert len(evaluation_roles(open_dataset(source.evaluates), 10_000).pool) >= 460


# Whole runs


def average_by_hand(runs: list[Path]) -> np.ndarray:
    weights = [load_policy(run)[0].weights.detach().numpy().astype(float) for run in runs]
    mean = np.mean([w / np.linalg.norm(w) for w in weights], 0)
    return 2.5 * mean / np.linalg.norm(mean)


def check_policies(out: Path) -> None:
    """Each target's policy averages all runs that did not train on it, by what their own settings say."""
    plan = json.loads((out / "plan.json").read_text())
    runs = sorted((out / "training").iterdir())
    trained_on = {run: yaml.safe_load((run / "config.yaml").read_text())["datasets"] for run in runs}
    for source in plan["sources"]:
        selector, card = load_policy(out / "policies" / source["name"])
        unseen = [run for run in runs if source["trains"] not in trained_on[run]]
        assert 0 < len(unseen) < len(runs)
        np.testing.assert_allclose(selector.weights.detach(), average_by_hand(unseen), rtol=1e-5)
        assert source["fingerprint"] not in [s["fingerprint"] for s in card.trained_on]
        assert source["trains"] not in [s["name"] for s in card.trained_on]
        assert len(card.parents) == len(unseen)
    np.testing.assert_allclose(load_policy(out / "policy")[0].weights.detach(), average_by_hand(runs), rtol=1e-5)


def judged_by(result: LeaveOneOut) -> Judged:
    (judged,) = result.budgets.values()
    return judged


def test_a_whole_run(whole):
    result, out, lines = whole
    check_policies(out)
    assert result.to_json() == json.loads((out / "leave_one_out.json").read_text())
    assert markdown(result) == (out / "leave_one_out.md").read_text()
    names = ["synthetic-pool", "synthetic-pool-2", "family-samples-classes-noise"]
    assert list(judged_by(result).targets) == names
    assert "leave-one-out: training 6 of 6, without-family-samples-classes-noise-seed1" in "\n".join(lines)
    summaries = read_summary(out / "comparison" / OWN / "summary.json").datasets
    for name in names:
        target, compared = judged_by(result).targets[name], summaries[name]
        assert target.learned_minus["badge"].mean == compared.pair("learned", "badge").mean
        assert target.origin.policies_averaged == [f"without-{name}-seed0", f"without-{name}-seed1"]
        assert compared.policies["learned"]["path"] == str(out / "policies" / name)
        assert all("never saw" not in note and "another version" not in note for note in compared.facts["notes"])
    assert judged_by(result).targets[names[0]].origin.drawn_from is None
    family = judged_by(result).targets[names[2]].origin
    assert family.drawn_from == FAMILY and family.evaluated_on == summaries[names[2]].facts["dataset_given"]
    assert f"is judged on one pool of {FAMILY}: {family.evaluated_on}" in markdown(result)


def test_again_nothing_is_done_again_and_strategies_may_grow(whole):
    result, out, _ = whole
    before = {p: p.stat().st_mtime_ns for p in (out / "training").rglob("*") if p.is_file() and p.name != ".lock"}
    lines: list[str] = []
    again = leave_one_out(config(strategies=("random", "badge", "margin")), out, lines.append)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert sum("already there" in line and "training" in line for line in lines) == 6
    assert any("12/12 chunks (9 already there)" in line for line in lines)
    for name, target in judged_by(result).targets.items():
        assert judged_by(again).targets[name].learned_minus["badge"] == target.learned_minus["badge"]
        assert "margin" in judged_by(again).targets[name].learned_minus


def test_budgets_are_judged_each_on_the_data_sets_that_can_supply_them(whole):
    _, out, _ = whole
    before = {p: p.stat().st_mtime_ns for p in (out / "training").rglob("*") if p.is_file() and p.name != ".lock"}
    families = ("synthetic-pool", "synthetic-pool-2", "family-samples-classes-noise")
    rows = {source.name: source.rows for source in name_sources(SOURCES, config().training.protocol)}
    large = f"{rows[families[2]] - 4}+2x2"  # only the family has so many rows
    result = leave_one_out(config(budgets=(OWN, large), strategies=("random",)), out, quiet)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert {name: tuple(judged.targets) for name, judged in result.budgets.items()} == {
        OWN: families,
        large: families[2:],
    }
    for name, judged in result.budgets.items():
        summaries = read_summary(out / "comparison" / name / "summary.json").datasets
        assert summaries.keys() == judged.targets.keys()
        assert {summary.protocol.name for summary in summaries.values()} == {name}
    words = markdown(result)
    assert words.count("## 6 + 2 x 3 labels") == 1 and words.count("is judged on one pool of") == 1


def test_trainings_of_somebody_else_take_a_word(whole, tmp_path):
    """A folder from elsewhere, in which one training was interrupted and a link leads out."""
    result, out, _ = whole
    shutil.copytree(out, tmp_path / "out")
    run = next(path.parent for path in sorted((tmp_path / "out" / "training").glob("*/finished")))
    (run / "finished").unlink()
    (run / "notes").symlink_to(tmp_path)
    with pytest.raises(TrustError, match="is a link that leads out of"):
        leave_one_out(config(), tmp_path / "out", quiet)
    again = leave_one_out(config(), tmp_path / "out", quiet, trust=True)
    assert judged_by(again).over_targets == judged_by(result).over_targets


def wait_for(checkpoint: Path, alive: Callable[[], bool] = lambda: True) -> None:
    deadline = time.monotonic() + 120
    while not checkpoint.is_dir() and alive() and time.monotonic() < deadline:
        time.sleep(0.005)


def test_splits_interrupted_twice_equal_uninterrupted(tmp_path, capsys):
    datasets, out = (*SOURCES, THIRD), tmp_path / "out"
    training = out / "training"
    settings = config(datasets, {"evolution": {"generations": 12}}, splits=2)
    given_ = arguments(out, "--splits", "2", "--set", "evolution.generations=12", datasets=datasets)

    def finished() -> list[str]:
        return sorted(p.parent.name for p in training.glob("*/finished"))

    def ctrl_c() -> None:
        wait_for(training / "split0-b" / "checkpoints" / "000001")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=ctrl_c)
    thread.start()
    assert main(given_) == 130
    thread.join()
    assert "the same command goes on from there" in capsys.readouterr().err
    assert finished() == ["split0-a"]
    assert 0 < len((training / "split0-b" / "history.jsonl").read_text().splitlines()) < 12
    done_at = (training / "split0-a" / "finished").stat().st_mtime_ns

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, str(RUN), *given_], env=environment, **pipes) as process:
        wait_for(training / "split1-a" / "checkpoints" / "000001", lambda: process.poll() is None)
        process.kill()
        output, _ = process.communicate()
    assert finished() == ["split0-a", "split0-b"], output
    assert (training / "split1-a" / "checkpoints").is_dir()
    assert "training 1 of 4, split0-a: already there" in output

    resumed = leave_one_out(settings, out, quiet)
    assert (training / "split0-a" / "finished").stat().st_mtime_ns == done_at
    check_policies(out)
    uninterrupted = leave_one_out(settings, tmp_path / "whole", quiet)
    assert resumed == uninterrupted
    assert uninterrupted.splits == 2 and "a random half of the sources" in text(uninterrupted)


def test_trainings_start_from_a_policy_that_has_seen_nothing(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "evaluation.leave_one_out.run.leave_one_out", lambda config, *_, **__: seen.append(config) or 1 / 0
    )
    for words in ((), ("--set", "policy.state=[]"), ("--set", "policy.initial=zero")):
        with pytest.raises(ZeroDivisionError):
            main(arguments(tmp_path / "out", *words))
    assert [config.training.policy.initial for config in seen] == ["badge", "badge", "zero"]
    assert {config.training.evolution.sigma0 for config in seen} == {0.5}


def test_time_before_an_interruption_counts(tmp_path):
    out = tmp_path / "out"
    leave_one_out(config(training_seeds=1), out, quiet)
    marks = sorted((out / "training").glob("*/finished"))
    history = marks[0].parent / "history.jsonl"
    rows = [json.loads(line) for line in history.read_text().splitlines()]
    marks[0].unlink()
    history.write_text(json.dumps(rows[0] | {"seconds": 601.0}) + "\n")  # killed after its ten minutes
    checkpoints = marks[0].parent / "checkpoints"
    (checkpoints / "000002").rename(tmp_path / "000002")
    leave_one_out(config(training_seeds=1), out, quiet)
    assert marks[0].exists() and not (checkpoints / "000002").exists()
    marks[0].unlink()
    history.write_text(json.dumps(rows[0] | {"seconds": 300.0}) + "\n")
    leave_one_out(config(training_seeds=1), out, quiet)
    assert marks[0].exists() and (checkpoints / "000002").exists()


# Refusals


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"datasets": (FIRST, THIRD, FAMILY)}, r"sources\.1\.trains is '.*seed=2' in its plan.json and '.*seed=3' in"),
        ({"datasets": (*SOURCES, THIRD)}, r"sources\.3\.name is not there in its plan.json and 'synthetic-pool-3'"),
        ({"splits": 2}, "splits is 0 in its plan.json and 2 in this command"),
        ({"training_seeds": 3}, "training_seeds is 2 in its plan.json and 3"),
        ({"training": {"seed": 5}}, r"training\.seed is 0 in its plan.json and 5"),
        ({"training": {"minutes": 5.0}}, r"training\.minutes is 10\.0 in its plan.json and 5\.0"),
        ({"training": {"evolution": {"sigma0": 0.3}}}, r"training\.evolution\.sigma0 is 0\.5"),
    ],
)
def test_another_plan_is_refused_by_name(whole, changes, says):
    files = {p: p.stat().st_mtime_ns for p in whole[1].rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(ConfigError, match=says):
        leave_one_out(config(**changes), whole[1], quiet)
    assert {p: p.stat().st_mtime_ns for p in files} == files


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"not empty and holds no plan\.json"):
        leave_one_out(config(), tmp_path, quiet)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(ConfigError, match=r"plan\.json cannot be read"):
        leave_one_out(config(), tmp_path, quiet)


@pytest.mark.parametrize(
    ("datasets", "extra", "says"),
    [
        ((FIRST, SECOND), (), "at least 3 data sets, and there are 2"),
        (("emoji",), (), "there is 1: emoji"),
        ((FIRST, SECOND, FIRST), (), "is the same data set as"),
        ((FIRST, FAMILY, FAMILY), (), f"'{FAMILY}' is the same data set as"),
        ((FIRST, SECOND, "emojo"), (), "Did you mean 'emoji'"),
        ((FIRST, SECOND, "synthetic-family:clases=3"), (), "Did you mean 'classes'"),
        (SOURCES, ("--splits", "-1"), "splits is -1"),
        (SOURCES, ("--training-seeds", "0"), "training_seeds is 0"),
        (SOURCES, ("--splits", "2", "--training-seeds", "2"), "give one of the two"),
        (SOURCES, ("--seeds", "0"), "seeds is 0"),
        (SOURCES, ("--strategies", "random,bagde"), "'badge'"),
        (SOURCES, ("--set", "policy.mlp=[4]"), "policy.mlp is [4]"),
        (SOURCES, ("--set", "policy.initial=pretrained"), "has seen family-samples-classes-noise: no result"),
        (("emoji", FIRST, SECOND), ("--set", "policy.initial=pretrained"), "has seen emoji: no result"),
        (SOURCES, ("--set", "evolution.sigma=1"), "Did you mean 'sigma0'"),
        (SOURCES, ("--set", "protocol.rounds=90"), "The budget of 276 labels"),
        (SOURCES, ("--budgets", "20,10"), "The budget '20' cannot be read; write INITIAL+ROUNDSxBATCH"),
        (SOURCES, ("--budgets", "6+0x3"), "protocol.rounds is 0"),
        (SOURCES, ("--budgets", "6+2x3,6+2x3"), "The budget 6+2x3 is named twice"),
        (SOURCES, ("--budgets", "100+90x10"), "No data set can supply the budget 100+90x10, 1000 labels"),
    ],
)
def test_mistakes_get_one_clear_line_before_any_work(datasets, extra, says, tmp_path, capsys):
    assert main(arguments(tmp_path / "out", *extra, datasets=datasets)) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and says in errors[0], errors
    assert not (tmp_path / "out").exists()


def test_an_output_path_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="Cannot write into"):
        leave_one_out(config(), tmp_path / "out", quiet)
