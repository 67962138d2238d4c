"""Training by the command line: what is left on the disk, what is said, what is the same again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from policies.policy_file import load_policy
from policies.start import initial_selector
from tests.support.training import DATASET, history, run_here, train_command

pytestmark = pytest.mark.usefixtures("one_ray")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, one_ray) -> dict[str, Path]:
    """Finished runs by name: a plain one in a process of its own, whose words lie beside it, and others."""
    root = tmp_path_factory.mktemp("run")
    with (
        open(root / "plain.txt", "w") as said,
        subprocess.Popen(train_command(root / "plain"), stdout=said, stderr=subprocess.STDOUT) as plain,
    ):
        two = ("--num-env-runners", "2")
        others = {"again": (), "other": ("--seed", "3"), "two": two, "two again": two}
        for name, extra in others.items():
            assert run_here([*train_command(root / name), *extra]) == 0
    assert plain.returncode == 0, (root / "plain.txt").read_text()
    return {name: root / name for name in ("plain", *others)}


@pytest.fixture(scope="module")
def trained(folders) -> Path:
    return folders["plain"]


def test_run_folder_is_complete(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"config.yaml", "policy", "checkpoints", "tensorboard", "learning_curve.png", "history.jsonl"} <= names
    rows = history(trained)
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert rows[-1]["episodes"] == 3 * 2 * 4
    # The reward is what its terms say: accuracy against the paired baselines, balance, difficulty; over 3 rounds.
    row = rows[0]
    baseline = (row["baseline/badge"] + row["baseline/margin"]) / 2
    expected = row["accuracy"] - baseline + 0.3 * row["weakest_modality"] + 0.2 * row["hard_accuracy"]
    assert row["return"] == pytest.approx(3 * expected, abs=1e-5)
    assert row["seconds"] > 0
    _, card = load_policy(trained)
    assert card.episodes == 24 and card.labels_used > 0 and card.seed == 0 and card.algorithm == "reinforce"


def test_tensorboard_groups(trained):
    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    groups = {tag.partition("/")[0] for tag in tags}
    wanted = {"reward", "accuracy", "modality_accuracy", "amcb_weight", "difficulty", "policy_weight", "time"}
    assert wanted <= groups
    assert "policy_weight/gradient_distance" in tags and "reward/hard_third" in tags
    assert [event.step for event in events.Scalars("reward/return")] == [1, 2, 3]


def test_train_says_what_it_starts(trained):
    processes, memory = trained.with_suffix(".txt").read_text().splitlines()[:2]
    assert processes.startswith("processes  one process plays 8 episodes") and memory.startswith("memory     about")


@pytest.mark.parametrize(("name", "again"), [("plain", "again"), ("two", "two again")])
def test_same_seed_same_weights(folders, name, again):
    """The plain one has a process of its own; the others play in two."""
    first, second, other_seed = (load_policy(folders[n])[0] for n in (name, again, "other"))
    assert torch.equal(first.weights, second.weights)
    assert not torch.equal(first.weights, other_seed.weights)
    assert not torch.equal(first.weights, initial_selector(first.config).weights)  # it has learned something


def test_several_data_sets_with_other_modalities_and_classes(tmp_path):
    out = tmp_path / "run"
    second = "synthetic:samples=300,classes=4,modalities=3,dim=5,missing=0.2,seed=2"
    arguments = train_command(out, "--dataset", f"{DATASET},{second}", "--set", "learner.iterations=4")
    assert run_here(arguments) == 0
    _, card = load_policy(out)
    assert len(card.trained_on) == 2
    assert card.labels_used == sum(source["labels"] for source in card.trained_on)
    # An iteration plays one data set, and they take turns: the third modality shows in every second one.
    named = [len([k for k in row if k.startswith("amcb/")]) for row in history(out)]
    assert sorted(named) == [2, 2, 3, 3] and named[0] != named[1]
