"""cluster/local.yaml over real OpenSSH servers: a head and a worker on this machine's loopback addresses."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster import DATASET, SETTINGS
from tests.support.paths import ROOT

LOOPBACK = ROOT / "cluster" / "loopback.sh"


def free_ports() -> int:
    """The first of three neighbouring ports that nobody uses."""
    for first in range(26500, 27500, 3):
        try:
            for port in range(first, first + 3):
                with socket.socket() as probe:
                    probe.bind(("0.0.0.0", port))
        except OSError:
            continue
        return first
    raise OSError("no three free ports")


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    """Run a command where loopback.sh is up; {} in a word stands for its folder."""
    if not Path("/usr/sbin/sshd").exists() or not shutil.which("rsync"):
        pytest.skip("needs openssh-server and rsync")
    folder = tmp_path / "loopback"
    environment = os.environ | {
        "RL_MBA_LOOPBACK": str(folder),
        "RL_MBA_LOOPBACK_PORT": str(free_ports()),
        "RAY_AUTH_MODE": "disabled",
    }

    def run(*words: str, status: int = 0) -> subprocess.CompletedProcess:
        command = [word.replace("{}", str(folder)) for word in words]
        if command[0] == "ray":
            command[0] = str(Path(sys.executable).with_name("ray"))
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT, env=environment
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done

    run(str(LOOPBACK), "up")
    try:
        yield run
    finally:
        run(str(LOOPBACK), "down")
        assert not folder.exists() and not started_over(folder)


def started_over(folder: Path) -> list[str]:
    """What runs with the home of loopback.sh's machines."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOME={folder}/home\0" in (process / "environ").read_text(errors="replace"):
                found.append((process / "cmdline").read_text(errors="replace").replace("\0", " "))
        except OSError:  # it has ended, or is not ours
            continue
    return found


@pytest.mark.slow
def test_up_submit_rsync_down(loopback, tmp_path):
    loopback("ray", "up", "-y", "{}/cluster.yaml")
    until = time.monotonic() + 120
    while "2 local.cluster.node" not in loopback("ray", "exec", "{}/cluster.yaml", "ray status").stdout:
        assert time.monotonic() < until, "the worker never came"
        time.sleep(3)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    train = ["run.py", "train", "--dataset", DATASET, "--out", "{}/data/runs/a", "--num-env-runners", "4", *settings]
    loopback("ray", "submit", "{}/cluster.yaml", *train)
    machines = [tmp_path / "loopback" / address for address in ("127.0.0.2", "127.0.0.3")]
    for machine in machines:  # one session, and runners on both machines
        assert [p.name for p in machine.glob("ray/session_2*")] == [
            p.name for p in machines[0].glob("ray/session_2*")
        ] and list(machine.glob("ray/session_2*/logs/worker-*.out"))
        assert (machine / "home" / "rl-mba" / "run.py").is_file()
    loopback("ray", "rsync-down", "{}/cluster.yaml", "{}/data/runs/", str(tmp_path / "fetched") + "/")
    history = (tmp_path / "fetched" / "a" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in history] == [1, 2, 3]
    assert "gcs_server" in "\n".join(started_over(tmp_path / "loopback"))
    loopback("ray", "down", "-y", "{}/cluster.yaml")
    assert "gcs_server" not in "\n".join(started_over(tmp_path / "loopback"))


def test_mistakes_are_said(tmp_path):
    def run(*words: str) -> str:
        environment = os.environ | {"RL_MBA_LOOPBACK": str(tmp_path)}
        done = subprocess.run(
            [str(LOOPBACK), *words], capture_output=True, text=True, timeout=30, check=False, env=environment
        )
        assert done.returncode == 2
        return done.stderr

    (tmp_path / "thesis.tex").touch()
    assert "was not made by" in run("down") and (tmp_path / "thesis.tex").exists()
    assert "down" in run() and "down" in run("sideways")
    assert "exists" in run("up") or "missing" in run("up")
