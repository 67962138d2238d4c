"""Run folders, sweeps and copies that somebody else wrote: nothing in them runs, and nothing leaves them, unasked."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest
import torch
import yaml

import run as command_line
from envs.errors import ConfigError, PolicyError, TrustError
from envs.registry import TRUSTED
from learners.algorithms.checkpoint import ARRAYS_FILE, STATE_FILE, LearnedState, read_state, write_state
from learners.run_folder import RunFolder
from learners.settings import TrainConfig, build, merge, parse_overrides, to_yaml
from learners.storage import MARKER, RunCopy
from learners.sweeps.config import SweepConfig
from learners.sweeps.search import sweep
from learners.training import train
from policies.policy_file import PolicyCard, load_policy, save_policy
from policies.selector import Selector, SelectorConfig
from tests.support.sweeps import TINY
from tests.support.training import DATASET, SMALL, run_here, train_command

FEATURE = "from envs.candidates import FEATURES\nimport os\nos.environ['PLANTED'] = __name__\nf = FEATURES['margin']\n"


class Planted:
    """What runs when it is unpickled."""

    def __init__(self, flag: Path):
        self.flag = flag

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.flag),)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a feature whose module says that it was imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    module = f"planted_{abs(hash(str(tmp_path)))}"
    (folder / f"{module}.py").write_text(FEATURE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PLANTED", "")
    yield f"{module}:f"
    sys.modules.pop(module, None)


def settings(**given: object) -> TrainConfig:
    reward = {"reward": {"baselines": []}, "resources": {"num_env_runners": 0}}
    return build(TrainConfig, merge(parse_overrides(SMALL), {"datasets": [DATASET], **reward, **given}))


def strangers_run(out: Path, text: str | None = None) -> RunFolder:
    run = RunFolder(out)
    out.mkdir(parents=True)
    run.config.write_text(text or to_yaml(settings()))
    return run


@pytest.mark.parametrize(
    "place", ["state.pkl", "algorithm_state.pkl", "learner_group/state.pkl", "class_and_ctor_args.pkl"]
)
@pytest.mark.usefixtures("one_ray")
def test_a_pickled_checkpoint_runs_nothing_unasked(tmp_path: Path, place: str) -> None:
    run = strangers_run(tmp_path / "run")
    file = run.checkpoints / "000001" / place
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    with pytest.raises(TrustError, match=r"pickle.*--resume --trust-checkpoint$"):
        train(settings(), run.root, resume=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("one_ray")
def test_a_run_of_an_earlier_version_goes_on_when_it_is_trusted(tmp_path: Path, monkeypatch, capsys) -> None:
    """RLlib's checkpoint of the same state leads to the same policy as ours does."""
    from ray.rllib.algorithms.algorithm import Algorithm

    from learners.algorithms.reinforce import Reinforce

    def as_before(self: Reinforce, components=None, *, not_components=None, **other: object) -> dict[str, object]:
        own = self.learned_state()
        kept = {"advantages": own.advantages, "averaged": own.averaged, "updates": own.updates, "labels": own.labels}
        return Algorithm.get_state(self, components, not_components=not_components, **other) | {"rl_mba": kept}

    whole, old = tmp_path / "whole", tmp_path / "old"
    config = settings(learner={"iterations": 1})
    train(config, whole)
    shutil.copytree(whole, old)
    trainer = config.trainer(config, load_policy(whole)[1], 1)
    trainer.restore(old / "checkpoints" / "000001")
    shutil.rmtree(old / "checkpoints" / "000001")
    monkeypatch.setattr(Reinforce, "get_state", as_before)
    trainer.algorithm.save_to_path(str(old / "checkpoints" / "000001"))
    trainer.stop()
    monkeypatch.undo()
    for run in (whole, old):
        run_config = run / "config.yaml"
        run_config.write_text(run_config.read_text().replace("  iterations: 1\n", "  iterations: 2\n"))
    resume = ["train", "--resume", "--out"]
    assert command_line.main([*resume, str(whole)]) == 0
    assert command_line.main([*resume, str(old)]) == 2
    assert "--resume --trust-checkpoint" in capsys.readouterr().err
    assert command_line.main([*resume, str(old), "--trust-checkpoint"]) == 0
    assert torch.equal(load_policy(old)[0].weights, load_policy(whole)[0].weights)
    assert not list((old / "checkpoints" / "000002").rglob("*.pkl"))


def state() -> LearnedState:
    rng = np.random.default_rng(0)
    weights = {"selector.weights": rng.normal(size=(3, 2)).astype(np.float32)}
    moments = {0: {"step": np.float32(4), "exp_avg": rng.normal(size=(3, 2)).astype(np.float32)}}
    return LearnedState(weights, {"weights": weights["selector.weights"].T}, moments, 4, 5, {"average": 0.1}, {1: 30})


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_state(state(), tmp_path)
    np.testing.assert_equal(read_state(tmp_path).__dict__, state().__dict__)


@pytest.mark.parametrize("file", [ARRAYS_FILE, STATE_FILE])
@pytest.mark.parametrize("damage", ["empty", "cut", "missing", "pickle", "list", "other format"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, file: str, damage: str) -> None:
    from learners.algorithms.gradient import ReinforceTrainer

    folder = tmp_path / "000003"
    folder.mkdir()
    write_state(state(), folder)
    content = (folder / file).read_bytes()
    damaged = {
        "empty": b"",
        "cut": content[:-9],
        "pickle": pickle.dumps(Planted(tmp_path / "ran")),
        "list": b"[]",
        "other format": content.replace(b'"format": 1', b'"format": 2').replace(b"weights/", b"weight+/"),
    }
    (folder / file).unlink()
    if damage != "missing":
        (folder / file).write_bytes(damaged[damage])
    trainer = object.__new__(ReinforceTrainer)
    with pytest.raises(PolicyError, match="000003 cannot be read"):
        trainer.restore(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda name: {"policy": {"features": ["margin", name]}},
        lambda name: {"policy": {"batch_features": [name]}},
        lambda name: {"algorithm": name},
        lambda name: {"reward": {"extra": {name: 1.0}}},
        lambda name: {"reward": {"baselines": [name]}},
    ],
    ids=["feature", "batch feature", "algorithm", "reward term", "baseline"],
)
def test_settings_in_a_strangers_run_import_nothing(
    tmp_path: Path, planted: str, change: Callable[[str], dict[str, object]]
) -> None:
    content = merge(yaml.safe_load(to_yaml(settings())), change(planted))
    run = strangers_run(tmp_path / "run", yaml.safe_dump(content))
    with pytest.raises(TrustError, match=rf"config.yaml names .*{TRUSTED}="):
        train(settings(), run.root, resume=True)
    assert os.environ["PLANTED"] == ""


@pytest.mark.parametrize("link", ["history.jsonl", ".lock", "policy/policy.json", "tensorboard", "checkpoints/000001"])
def test_a_run_with_links_out_of_it_writes_nowhere_else(tmp_path: Path, link: str) -> None:
    other = tmp_path / "other"
    other.write_text("of somebody else")
    run = strangers_run(tmp_path / "run")
    (run.root / link).parent.mkdir(exist_ok=True)
    (run.root / link).symlink_to(other)
    with pytest.raises(TrustError, match="leads out of"):
        train(settings(), run.root, resume=True)
    assert other.read_text() == "of somebody else"


@pytest.mark.parametrize("allowed", ["", "signed", "trust", "variable"])
def test_a_policy_from_elsewhere_imports_nothing_unasked(
    tmp_path: Path, planted: str, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    if allowed != "signed":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of_another"))
    selector = Selector(SelectorConfig(features=("margin", planted)))
    save_policy(selector, PolicyCard(), tmp_path / "policy")
    monkeypatch.setattr("envs.registry._named", set())  # as in another process, where nobody asked for it
    sys.modules.pop(planted.partition(":")[0])
    monkeypatch.setenv("PLANTED", "")
    if allowed != "signed":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of_this_user"))
    if allowed == "variable":
        monkeypatch.setenv(TRUSTED, planted.partition(":")[0])
    if allowed:
        loaded, _ = load_policy(tmp_path / "policy", trust=allowed == "trust")
        assert loaded.config.features == ("margin", planted)
        return
    with pytest.raises(TrustError, match=f"policy.json names .*{TRUSTED}="):
        load_policy(tmp_path / "policy")
    assert os.environ["PLANTED"] == ""
    assert command_line.main(["average", "--policies", f"{tmp_path},{tmp_path}", "--out", str(tmp_path / "mean")]) == 2


@pytest.mark.parametrize("with_storage", [False, True])
def test_a_sweep_from_elsewhere_is_refused(tmp_path: Path, with_storage: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out, storage = tmp_path / "sweep", str(tmp_path / "shared") if with_storage else None
    state = (Path(storage) / "sweep" if storage else out) / "tune"
    state.mkdir(parents=True)
    for name in ("tuner.pkl", "trainable.pkl"):
        (state / name).write_bytes(pickle.dumps(Planted(tmp_path / "ran")))
    (state.parent / "sweep.yaml").write_text(to_yaml(build(SweepConfig, TINY)))
    if storage:
        (state.parent / MARKER).write_text('{"checkpoints": []}')
    monkeypatch.setattr("learners.sweeps.search.local_ray", lambda _: pytest.fail("it was taken"))
    with pytest.raises(TrustError, match="--resume --trust-checkpoint"):
        sweep(None, out, resume=True, storage=storage)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "key", ["../../escaped", "/escaped", "checkpoints/../../escaped", "a/../../../escaped", "..\\escaped"]
)
def test_keys_of_a_bucket_do_not_leave_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """A bucket's keys are any text; here a file system that lists one more."""

    class Listed(pafs.FileSystemHandler):
        pass

    place = tmp_path / "shared" / "run"
    place.mkdir(parents=True)
    for name, content in {"config.yaml": "seed: 1\n", MARKER: '{"checkpoints": []}'}.items():
        (place / name).write_text(content)
    run = RunFolder(tmp_path / "here" / "run")
    copy = RunCopy(str(tmp_path / "shared"), run)
    real = copy._files

    class Bucket:
        def get_file_info(self, selector: object) -> list[pafs.FileInfo]:
            path = key if key.startswith("/") else f"{copy._root}/{key}"
            return [*real.get_file_info(selector), pafs.FileInfo(path, pafs.FileType.File)]

        def open_input_file(self, path: str) -> object:
            return io.BytesIO(b"escaped") if "escaped" in path else real.open_input_file(path)

    copy._files = Bucket()
    with pytest.raises(TrustError, match="leads out of the run folder"):
        copy.fetch()
    assert not [path for path in tmp_path.rglob("*") if "escaped" in path.name]


@pytest.mark.parametrize("names", [["²"], ["../1"], [3], [None], ["1", "٣"]])
def test_names_of_checkpoints_are_numbers(tmp_path: Path, names: list[object]) -> None:
    place = tmp_path / "shared" / "run"
    place.mkdir(parents=True)
    (place / MARKER).write_text(json.dumps({"checkpoints": names}))
    copy = RunCopy(str(tmp_path / "shared"), RunFolder(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"run/copied.json cannot be read"):
        copy.complete()


def test_a_storage_with_a_link_out_of_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("of somebody else")
    (tmp_path / "shared" / "run").mkdir(parents=True)
    (tmp_path / "shared" / "run" / MARKER).symlink_to(tmp_path / "other")
    with pytest.raises(TrustError, match="leads out of"):
        RunCopy(str(tmp_path / "shared"), RunFolder(tmp_path / "run"))
    assert (tmp_path / "other").read_text() == "of somebody else"


def test_trust_is_for_resuming(tmp_path: Path, capsys) -> None:
    assert run_here([*train_command(tmp_path / "run"), "--trust-checkpoint"]) == 2
    assert "--trust-checkpoint is for --resume" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="holds no sweep"):
        sweep(None, tmp_path / "none", resume=True)
