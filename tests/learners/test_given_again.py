"""What a command is given beside --resume, what a start leaves that failed, and two commands in one folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

import run
from envs.origin import sign_folder
from learners.run_folder import RunFolder
from learners.settings import TrainConfig, build, read_yaml, to_yaml
from learners.sweeps.config import SweepConfig
from policies.policy_file import load_policy
from tests.support.sweeps import TINY
from tests.support.training import history

DATASET = TINY["train"]["datasets"][0]
SETTINGS = {**TINY["train"], "minutes": 7.0, "resources": {"num_env_runners": 0}}


def train(out: Path, *words: str) -> int:
    return run.main(["train", "--out", str(out), *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two generations, by no process but this one."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
    assert train(folder / "run", "--config", str(folder / "small.yaml")) == 0
    return folder / "run"


@pytest.fixture
def trained(finished: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--dataset", "emoji"], "datasets"),
        (["--dataset", f"{DATASET},emoji"], "datasets"),
        (["--algorithm", "ppo"], "algorithm"),
        (["--set", "learner.copies=8"], "learner.copies"),
        (["--set", "evolution.population=8"], "evolution.population"),
        (["--seed", "9"], "seed"),
        (["--preset", "paper"], "preset = default"),
        (["--set", "preset=paper_efda", "--set", "algorithm=reinforce"], "preset = default"),
        (["--set", "reward.hard_third=0.7"], "reward.hard_third"),
    ],
)
def test_a_resumed_run_refuses_to_become_another(words: list[str], name: str, trained: Path, capsys) -> None:
    before = {file: file.read_bytes() for file in trained.rglob("*") if file.is_file()}
    assert train(trained, "--resume", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{trained} holds a run with {name}" in line
    assert {file: file.read_bytes() for file in trained.rglob("*") if file.is_file()} == before


def test_a_resumed_run_takes_the_same_again(trained: Path) -> None:
    small = trained.parent / "small.yaml"
    small.write_text(yaml.safe_dump(SETTINGS | {"minutes": 3}))
    assert train(trained, "--resume", "--config", str(small), "--dataset", DATASET, "--algorithm", "evolution") == 0
    assert len(history(trained)) == 2


def test_a_resumed_run_goes_on_for_as_long_as_it_is_told(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainConfig] = []
    monkeypatch.setattr("learners.training._train", lambda config, run, *_: seen.append(config) or run.policy)
    for words in ([], ["--minutes", "60"], ["--set", "minutes=5"], []):
        assert train(trained, "--resume", *words) == 0
    assert [config.minutes for config in seen] == [7.0, 60.0, 5.0, 7.0]
    assert train(trained, "--resume", "--num-env-runners", "0", "--set", "evolution.generations=9") == 0
    assert seen[-1].evolution.generations == 9
    assert train(trained, "--resume") == 0
    assert seen[-1].evolution.generations == 9  # from now on


def test_more_generations_are_trained(trained: Path) -> None:
    assert train(trained, "--resume", "--set", "evolution.generations=3") == 0
    assert [row["iteration"] for row in history(trained)] == [1, 2, 3]


def test_a_run_whose_preset_is_no_longer_known_goes_on(trained: Path) -> None:
    config = trained / "config.yaml"
    config.write_text(config.read_text().replace("preset: default", "preset: nonsense"))
    assert train(trained, "--resume") == 0
    assert build(TrainConfig, {**read_yaml(config), "preset": "default"}).evolution.generations == 2


def test_the_card_names_the_preset_that_was_applied(tmp_path: Path) -> None:
    small = tmp_path / "small.yaml"
    small.write_text(yaml.safe_dump(SETTINGS | {"algorithm": "reinforce"}))
    words = ["--config", str(small), "--set", "preset=paper", "--set", "learner.iterations=1"]
    assert train(tmp_path / "run", *words, "--set", "learner.groups=1", "--set", "reward.baselines=[random]") == 0
    selector, card = load_policy(tmp_path / "run")
    assert card.preset == "paper" and selector.config.mlp == (64,) and not selector.config.linear


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """The folder of a sweep that was interrupted."""
    out = tmp_path / "sweep"
    out.mkdir()
    (out / "sweep.yaml").write_text(to_yaml(build(SweepConfig, TINY)))
    sign_folder(out)
    return out


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--trials", "7"], "trials = 4"),
        (["--concurrent", "3"], "concurrent = 1"),
        (["--seed", "9"], "seed = 0"),
        (["--dataset", "emoji"], "train.datasets"),
        (["--config", "{starts: 3}"], "starts = 2"),
        (["--config", "{space: {reward.hard_third: {choice: [1, 2]}}}"], "space.reward.hard_third.choice"),
        (["--config", "{train: {protocol: {rounds: 4}}}"], "train.protocol.rounds = 3"),
    ],
)
def test_a_resumed_sweep_refuses_to_become_another(words: list[str], name: str, sweep: Path, capsys) -> None:
    if words[0] == "--config":
        file = sweep.parent / "other.yaml"
        file.write_text(words[1])
        words = ["--config", str(file)]
    assert run.main(["tune", "--out", str(sweep), "--resume", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{sweep} holds a sweep with" in line and name in line


@pytest.fixture
def no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray does not start."""

    def fail(**_: object) -> None:
        raise RuntimeError("The current node timed out during startup.")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.init", fail)


@pytest.mark.usefixtures("no_start")
def test_a_start_that_fails_leaves_the_folder_to_the_next(tmp_path: Path, capsys) -> None:
    small, search = tmp_path / "small.yaml", tmp_path / "sweep.yaml"
    small.write_text(yaml.safe_dump(SETTINGS | {"resources": {"num_env_runners": 1}}))
    search.write_text(yaml.safe_dump(TINY))
    for command, file in (("train", small), ("tune", search), ("train", small)):
        for _ in range(2):
            assert run.main([command, "--config", str(file), "--out", str(tmp_path / "out")]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith("error: Ray did not start in 3 attempts")


def test_one_command_at_a_time_works_in_a_folder(sweep: Path, trained: Path, capsys) -> None:
    held = [RunFolder(sweep), RunFolder(trained)]
    for folder in held:
        folder.lock()
    try:
        compare = ["--dataset", DATASET, "--policy", "none", "--strategies", "random,margin", "--seeds", "1"]
        small = ["--set", "protocol.rounds=1", "--set", "protocol.batch_size=2"]
        for words in (
            ["tune", "--out", str(sweep), "--resume"],
            ["train", "--out", str(trained), "--resume"],
            ["compare", "--out", str(sweep), *compare, *small],
        ):
            assert run.main(words) == 2
            assert "in use by another run" in capsys.readouterr().err
    finally:
        for folder in held:
            folder.release()
