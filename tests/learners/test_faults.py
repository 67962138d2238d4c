"""Faults in real processes: what training does when a part of it dies, hangs, raises or cannot write.

python -m pytest tests/learners/test_faults.py -m slow -s    # prints the seconds that docs/scaling.md tabulates
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch

from envs.errors import RLMBAError
from learners.algorithms.gradient import ReinforceTrainer
from learners.settings import TrainConfig, build, merge, parse_overrides
from learners.training import opened, policy_card
from policies.policy_file import load_policy
from runtime.cluster import local_ray
from runtime.progress import Progress
from tests.support.paths import ROOT
from tests.support.training import command

pytestmark = pytest.mark.slow
DATASET = "synthetic:samples=400,classes=4,modalities=2,dim=8,seed=1"
ITERATIONS = 12
SMALL = [
    "protocol.initial_labels=10",
    "protocol.batch_size=5",
    "protocol.rounds=5",
    "learner.groups=4",
    "learner.copies=8",
    f"learner.iterations={ITERATIONS}",
    f"evolution.generations={ITERATIONS}",
    "evolution.population=8",
    "evolution.starts=4",
    "starts=8",
]
# The name of a process that plays, and of one that learns, by algorithm.
PLAYERS = {"evolution": "play_population", "reinforce": "EnvRunner"}


class Training:
    """`run.py train` in a process group of its own, whose processes are known by a variable in their environment."""

    def __init__(self, out: Path, algorithm: str, *more: str, environment: dict[str, str] | None = None):
        self.out, self.mark = out, uuid.uuid4().hex
        settings = [part for setting in SMALL for part in ("--set", setting)]
        words = ["train", "--algorithm", algorithm, "--dataset", DATASET, "--out", out, "--num-env-runners", "2"]
        self.process = subprocess.Popen(
            command(*words, *settings, *more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"RL_MBA_FAULTS": self.mark} | (environment or {}),
        )

    @property
    def iterations(self) -> list[int]:
        file = self.out / "history.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [json.loads(line)["iteration"] for line in lines]

    def wait_for(self, iteration: int, seconds: float = 180) -> None:
        wait_until(lambda: iteration in self.iterations or self.process.poll() is not None, seconds)
        assert iteration in self.iterations, self.process.communicate()[0]

    def processes(self, name: str) -> list[int]:
        """Ids of the processes whose command line holds a name."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark in (folder / "environ").read_text(errors="replace"):
                    words = (folder / "cmdline").read_text(errors="replace")
                    if words.startswith("ray::") and name in words:
                        found.append(int(folder.name))
            except OSError:  # it has ended
                continue
        return sorted(found)

    def strike(self, name: str, how: signal.Signals) -> int:
        """Send a signal to one process of a name, as soon as there is one; returns its id."""
        found: list[int] = []
        wait_until(lambda: bool(found.extend(self.processes(name)) or found), 30)
        os.kill(found[0], how)
        return found[0]

    def finish(self, status: int = 0, seconds: float = 240) -> str:
        said, _ = self.process.communicate(timeout=seconds)
        assert self.process.returncode == status, said
        return said

    def end(self) -> None:
        """Leave nothing behind, stopped processes neither."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark in (folder / "environ").read_text(errors="replace"):
                    os.kill(int(folder.name), signal.SIGKILL)
            except OSError:
                continue


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """Start trainings that end with the test."""
    started: list[Training] = []

    def begin(algorithm: str, *more: str, **other) -> Training:
        started.append(Training(tmp_path / "run", algorithm, *more, **other))
        return started[-1]

    yield begin
    for training in started:
        training.end()


def wait_until(true: Callable[[], bool], seconds: float) -> float:
    """Seconds until something is true."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it never came"
        time.sleep(0.02)
    return time.monotonic() - began


def weights(out: Path) -> torch.Tensor:
    return load_policy(out)[0].weights.detach()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Callable[[str], Path]:
    """Finished runs without a fault, by algorithm."""
    done: dict[str, Path] = {}

    def run(algorithm: str) -> Path:
        if algorithm not in done:
            training = Training(tmp_path_factory.mktemp(algorithm) / "run", algorithm)
            training.finish()
            done[algorithm] = training.out
        return done[algorithm]

    return run


def last_accuracies(out: Path) -> float:
    """Mean accuracy of the last four iterations."""
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return sum(row["accuracy"] for row in rows[-4:]) / 4


def check_same(out: Path, other: Path, algorithm: str) -> None:
    """All iterations, once each; the same weights, or for asynchronous losses of episodes the same quality."""
    rows = [json.loads(line)["iteration"] for line in (out / "history.jsonl").read_text().splitlines()]
    assert rows == list(range(1, ITERATIONS + 1))
    if algorithm == "evolution":
        assert torch.equal(weights(out), weights(other))
    else:
        assert abs(last_accuracies(out) - last_accuracies(other)) < 0.03


def report(case: str, algorithm: str, seconds: float, training: Training) -> None:
    rows = [json.loads(line)["seconds"] for line in (training.out / "history.jsonl").read_text().splitlines()]
    usual = sorted(rows)[len(rows) // 2]
    print(f"\n| {case} | {algorithm} | {seconds:.1f} s until the next iteration, which usually takes {usual:.1f} s |")


@pytest.mark.parametrize("algorithm", PLAYERS)
def test_a_player_is_killed(start, undisturbed, algorithm):
    training = start(algorithm)
    training.wait_for(3)
    training.strike(PLAYERS[algorithm], signal.SIGKILL)
    last = training.iterations[-1]
    seconds = wait_until(lambda: training.iterations[-1] > last, 60)
    training.finish()
    report("kill -9 of a process that plays", algorithm, seconds, training)
    check_same(training.out, undisturbed(algorithm), algorithm)


@pytest.mark.parametrize("algorithm", PLAYERS)
def test_the_driver_is_killed(start, undisturbed, algorithm):
    training = start(algorithm)
    training.wait_for(4)
    os.killpg(training.process.pid, signal.SIGKILL)
    training.process.wait()
    before = training.iterations[-1]
    again = start(algorithm, "--resume")
    seconds = wait_until(lambda: again.iterations[-1] > before, 120)
    again.finish()
    report("kill -9 of the driver, then --resume", algorithm, seconds, again)
    check_same(again.out, undisturbed(algorithm), algorithm)


@pytest.mark.parametrize("algorithm", PLAYERS)
def test_a_player_hangs(start, undisturbed, algorithm):
    training = start(algorithm, "--set", "resources.patience_s=5")
    training.wait_for(3)
    training.strike(PLAYERS[algorithm], signal.SIGSTOP)
    last = training.iterations[-1] + 1  # the one under way may not have needed it any more
    seconds = wait_until(lambda: training.iterations[-1] > last, 90)
    training.finish()
    report("a process that plays hangs (patience of 5 s)", algorithm, seconds, training)
    check_same(training.out, undisturbed(algorithm), algorithm)


def test_every_player_of_appo_hangs(start):
    training = start("appo", "--set", "resources.patience_s=5")
    training.wait_for(3)
    for process in training.processes("EnvRunner"):
        os.kill(process, signal.SIGSTOP)
    last = training.iterations[-1] + 1
    seconds = wait_until(lambda: training.iterations[-1] > last, 90)
    training.finish()
    report("all processes that play hang (patience of 5 s)", "appo", seconds, training)


def test_a_player_of_appo_hangs_beside_another(start):
    training = start("appo", "--set", "resources.patience_s=5", "--set", "learner.iterations=1000")
    training.wait_for(3)
    hanging = training.strike("EnvRunner", signal.SIGSTOP)
    last = training.iterations[-1]
    wait_until(lambda: training.iterations[-1] > last + 2, 5)  # the other one plays on
    seconds = wait_until(lambda: hanging not in training.processes("EnvRunner"), 30)
    seconds += wait_until(lambda: len(training.processes("EnvRunner")) == 2, 60)
    training.process.send_signal(signal.SIGINT)
    training.finish()
    print(f"\n| one of two processes that play hangs (patience of 5 s) | appo | replaced after {seconds:.1f} s |")


@pytest.mark.parametrize("algorithm", PLAYERS)
def test_an_environment_raises(start, undisturbed, tmp_path, algorithm):
    """Once, in one process: environment runners are replaced; evolution ends, and goes on by --resume."""
    flag = tmp_path / "raise"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os\n"
        "from envs.simulation import Simulation\n"
        "label = Simulation.label\n"
        "def raising(self, picks):\n"
        "    try:\n"
        f"        os.remove({str(flag)!r})\n"
        "    except FileNotFoundError:\n"
        "        return label(self, picks)\n"
        "    raise RuntimeError('the simulator lost its connection')\n"
        "Simulation.label = raising\n"
    )
    root = ROOT
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(root)])}
    training = start(algorithm, environment=environment)
    training.wait_for(3)
    flag.touch()
    wait_until(lambda: not flag.exists(), 30)
    last = training.iterations[-1]
    if algorithm == "evolution":
        said = training.finish(status=1)
        assert "the simulator lost its connection" in said
        assert len(training.iterations) <= last + 1
        training = start(algorithm, "--resume", environment=environment)
    seconds = wait_until(lambda: training.iterations[-1] > last, 60)
    training.finish()
    report("an environment raises", algorithm, seconds, training)
    check_same(training.out, undisturbed(algorithm), algorithm)


@pytest.mark.parametrize("algorithm", PLAYERS)
def test_the_storage_fills_up(start, undisturbed, tmp_path, algorithm):
    (tmp_path / "run").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path / "run")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small file system")
    try:
        training = start(algorithm)
        training.wait_for(3)
        filler = tmp_path / "run" / "filler"
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        said = training.finish(status=2)
        assert "error:" in said and "Traceback" not in said and str(tmp_path / "run") in said, said
        before = training.iterations[-1]
        load_policy(training.out)  # what was exported last is whole
        filler.unlink()
        training = start(algorithm, "--resume")
        seconds = wait_until(lambda: training.iterations[-1] > before, 60)
        training.finish()
        report("the storage fills up; space made, then --resume", algorithm, seconds, training)
        check_same(training.out, undisturbed(algorithm), algorithm)
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "run")], check=True)


def test_the_learner_is_killed(start, undisturbed):
    training = start("reinforce", "--set", "resources.num_learners=1")
    training.wait_for(4)
    training.strike("_WrappedExecutable", signal.SIGKILL)  # as RLlib calls a remote learner
    before = training.iterations[-1]
    said = training.finish(status=2)
    assert "error:" in said and "--resume" in said and "Traceback" not in said, said
    training = start("reinforce", "--resume")
    seconds = wait_until(lambda: training.iterations[-1] > before, 60)
    training.finish()
    report("kill -9 of the remote learner, then --resume", "reinforce", seconds, training)
    check_same(training.out, undisturbed("reinforce"), "reinforce")


def test_a_checkpoint_that_lacks_the_learner_is_none(tmp_path):
    """The learner ends before, or while, it is asked for its part."""
    resources = {"num_env_runners": 0, "num_learners": 1}
    given = {"datasets": [DATASET], "reward": {"baselines": []}, "resources": resources}
    config = build(TrainConfig, merge(parse_overrides(SMALL), given))
    with local_ray(1):
        trainer = ReinforceTrainer(config, policy_card(config, opened(config)), 0, Progress())
        (tmp_path / "whole").mkdir()
        trainer.save(str(tmp_path / "whole"))
        for learner in trainer.algorithm.learner_group._worker_manager.actors().values():
            ray.kill(learner)
        for name in ("broken", "again"):
            (tmp_path / name).mkdir()
            with pytest.raises(RLMBAError, match="--resume"):
                trainer.save(str(tmp_path / name))
            assert not list((tmp_path / name).iterdir())
        trainer.stop()


@pytest.mark.parametrize("algorithm", PLAYERS)
def test_a_node_dies(start, undisturbed, algorithm):
    """Three nodes; the one that plays on its own dies."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        training = start(algorithm, environment={"RAY_ADDRESS": cluster.address})
        training.wait_for(3)
        cluster.remove_node(nodes[0], allow_graceful=False)
        last = training.iterations[-1] + 1
        seconds = wait_until(lambda: training.iterations[-1] > last, 120)
        training.finish()
        report("a node with a process that plays is lost", algorithm, seconds, training)
        check_same(training.out, undisturbed(algorithm), algorithm)
    finally:
        cluster.shutdown()
