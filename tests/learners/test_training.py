"""Training through the command line, in real processes: results, resumption, interruption, mistakes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.policy_file import load_policy
from policies.selector import Selector
from run import main
from tests.support.training import DATASET, command, run, run_together, train_command


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Finished runs by name, what they said in a file beside each: a plain one, and pairs with another seed."""
    root = tmp_path_factory.mktemp("run")
    other, runners = ("--seed", "3"), ("--num-env-runners", "2")
    for more in (
        {"plain": (), "a": other, "b": other},
        {"a2": (*other, *runners), "b2": (*other, *runners)},
    ):
        said = run_together(train_command(root / name, *extra) for name, extra in more.items())
        for name, words in zip(more, said, strict=True):
            (root / f"{name}.txt").write_text(words)
    return {name: root / name for name in ("plain", "a", "b", "a2", "b2")}


@pytest.fixture(scope="module")
def trained(folders) -> Path:
    return folders["plain"]


def test_run_folder_is_complete(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"config.yaml", "policy", "checkpoints", "tensorboard", "learning_curve.png", "history.jsonl"} <= names
    history = [json.loads(line) for line in (trained / "history.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in history] == [1, 2, 3]
    assert history[-1]["episodes"] == 3 * 2 * 4
    # The reward is what its terms say: accuracy against the paired baselines, balance, difficulty; over 3 rounds.
    row = history[0]
    baseline = (row["baseline/badge"] + row["baseline/margin"]) / 2
    expected = row["accuracy"] - baseline + 0.3 * row["weakest_modality"] + 0.2 * row["hard_accuracy"]
    assert row["return"] == pytest.approx(3 * expected, abs=1e-5)
    assert row["seconds"] > 0
    _, card = load_policy(trained)
    assert card.episodes == 24 and card.labels_used > 0 and card.seed == 0 and card.algorithm == "reinforce"


def test_tensorboard_groups(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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


@pytest.mark.parametrize("runners", ["", "2"])
def test_same_seed_same_weights(folders, runners):
    first, again, other_seed = (load_policy(folders[n])[0] for n in ("a" + runners, "b" + runners, "plain"))
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.weights, other_seed.weights)
    assert not torch.equal(first.weights, Selector(first.config).weights)  # it has learned something


def test_several_data_sets_with_other_modalities_and_classes(tmp_path):
    out = tmp_path / "run"
    second = "synthetic:samples=300,classes=4,modalities=3,dim=5,missing=0.2,seed=2"
    arguments = train_command(out, "--dataset", f"{DATASET},{second}", "--set", "learner.iterations=4")
    done = run(arguments)
    assert done.returncode == 0, done.stderr
    _, card = load_policy(out)
    assert len(card.trained_on) == 2
    assert card.labels_used == sum(source["labels"] for source in card.trained_on)
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    # An iteration plays one data set, and they take turns: the third modality shows in every second one.
    named = [len([k for k in row if k.startswith("amcb/")]) for row in rows]
    assert sorted(named) == [2, 2, 3, 3] and named[0] != named[1]


def wait_for(condition, process: subprocess.Popen, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "training ended before the condition held"
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.02)


def start_long(out: Path) -> subprocess.Popen:
    return subprocess.Popen(
        train_command(out, "--set", "learner.iterations=100000"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_resume_after_kill(tmp_path):
    out = tmp_path / "run"
    process = start_long(out)
    wait_for(lambda: (out / "checkpoints" / "000004").is_dir(), process)
    os.killpg(process.pid, signal.SIGKILL)  # Ray's own processes notice and leave
    process.wait()
    kept = max(int(p.name) for p in (out / "checkpoints").iterdir() if p.name.isdigit())
    before = load_policy(out)[1].episodes
    (out / "config.yaml").write_text((out / "config.yaml").read_text().replace("100000", str(kept + 2)))
    done = run(command("train", "--out", out, "--resume"))
    assert done.returncode == 0, done.stderr
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in history] == list(range(1, kept + 3))
    assert load_policy(out)[1].episodes == (kept + 2) * 8 >= before - 8


def test_interrupt_leaves_a_usable_policy(tmp_path):
    out = tmp_path / "run"
    process = start_long(out)
    wait_for(lambda: (out / "checkpoints" / "000002").is_dir(), process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    selector, card = load_policy(out)
    assert card.episodes >= 16 and torch.isfinite(selector.weights).all()
    assert (out / "learning_curve.png").stat().st_size > 1000


def npz(path: Path, **changes) -> Path:
    rng = np.random.default_rng(0)
    arrays = {
        "x_a": rng.standard_normal((120, 4)).astype(np.float32),
        "x_b": rng.standard_normal((120, 3)).astype(np.float32),
        "y": np.arange(120) % 3,
    }
    np.savez(path, **(arrays | changes))
    return path


def bad_inputs(tmp_path: Path) -> dict[str, tuple[list[str], list[str]]]:
    nan = np.zeros((120, 4), np.float32)
    nan[7, 2] = np.nan
    lonely = np.arange(120) % 3
    lonely[5] = 3
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "policy.json").write_text("{")
    (broken / "policy.safetensors").write_bytes(b"nothing")
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").write_text("mine")
    out = ["--out", str(tmp_path / "out")]
    good = str(npz(tmp_path / "good.npz"))
    return {
        "nan": (["train", "--dataset", str(npz(tmp_path / "nan.npz", x_a=nan)), *out], ["'a'", "7"]),
        "rows": (["train", "--dataset", str(npz(tmp_path / "r.npz", x_b=np.zeros((9, 3)))), *out], ["'b'", "9", "120"]),
        "one sample": (["train", "--dataset", str(npz(tmp_path / "o.npz", y=lonely)), *out], ["3", "5"]),
        "budget": (["train", "--dataset", good, *out], ["budget", "120", "protocol.rounds"]),
        "data set": (["train", "--dataset", "emojo", *out], ["emojo", "emoji"]),
        "strategy": (["compare", "--dataset", "emoji", "--strategies", "bagde", *out], ["bagde", "'badge'"]),
        "policy": (["compare", "--dataset", "emoji", "--policy", str(broken), *out], ["policy.json"]),
        "setting": (["train", "--set", "learner.copys=3", *out], ["learner.copys", "'copies'"]),
        "type": (["train", "--set", "protocol.rounds=many", *out], ["protocol.rounds", "many"]),
        "preset": (["train", "--preset", "papper", *out], ["papper", "'paper'"]),
        "algorithm": (["train", "--algorithm", "evolutio", *out], ["evolutio", "'evolution'"]),
        "family": (["train", "--dataset", "synthetic-family:classes=1", *out], ["classes is 1"]),
        "paper by evolution": (["train", "--algorithm", "evolution", "--preset", "paper", *out], ["policy.mlp"]),
        "gpu": (["train", "--dataset", "emoji", "--num-gpus-per-env-runner", "4", *out], ["8 GPUs"]),
        "folder in use": (["train", "--dataset", "emoji", "--out", str(used)], ["not empty", "--resume"]),
        "nothing to resume": (["train", "--resume", *out], ["resume"]),
    }


def test_pools_of_a_family_are_drawn_as_training_goes(tmp_path):
    """Two runners draw for themselves; what is drawn is counted, and a resumed run goes on counting."""
    family = "synthetic-family:samples=400,classes=3"
    out = tmp_path / "run"
    done = run([*train_command(out, "--dataset", f"{DATASET},{family}"), "--num-env-runners", "2"])
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    played = {name for row in rows for name in row if name.startswith("source_")}
    minus = {f"source_aulc_minus/{name}/synthetic" for name in ("badge", "margin")}
    assert played == {f"source_aulc/{family}", "source_aulc/synthetic"} | minus
    for row in rows:  # a family has no baselines, and its episodes do not blur those of the others
        assert ("aulc_minus/badge" in row) == ("source_aulc/synthetic" in row)
        if "aulc_minus/badge" in row:
            assert row["aulc_minus/badge"] == pytest.approx(row["source_aulc_minus/badge/synthetic"])
    first = load_policy(out)[1]
    drawn = next(source for source in first.trained_on if source["name"] == family)["labels"]
    assert drawn > 150 and first.labels_used == drawn + first.trained_on[0]["labels"]
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("iterations: 3", "iterations: 5"))
    done = run(command("train", "--out", out, "--resume"))
    assert done.returncode == 0, done.stderr
    more = load_policy(out)[1].trained_on[1]["labels"]
    assert more > drawn


def test_mistakes_get_one_clear_line(tmp_path, capsys):
    cases = bad_inputs(tmp_path)
    done = run(command(*cases["nan"][0]))  # one as a user meets it; a process for each takes a minute
    said = {"nan": (done.returncode, done.stderr)}
    for name, (arguments, _) in cases.items():
        if name not in said:
            said[name] = main(arguments), capsys.readouterr().err
    for name, (status, errors) in said.items():
        assert status == 2, (name, errors)
        message = errors.strip().splitlines()[-1]
        assert message.startswith("error: ") and "Traceback" not in errors, (name, errors)
        for word in cases[name][1]:
            assert word in message, (name, message)
    assert not (tmp_path / "out").exists()  # nothing was begun


def test_broken_checkpoint_is_named(trained, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / ".lock").unlink(missing_ok=True)
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace("iterations: 3", "iterations: 4"))
    last = max((copy / "checkpoints").iterdir())
    for pickle in last.rglob("*.pkl"):
        pickle.write_bytes(b"broken")
    done = run(command("train", "--out", copy, "--resume"))
    assert done.returncode == 2
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("error: ") and last.name in message and "Traceback" not in done.stderr
