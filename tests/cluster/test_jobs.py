"""`ray job submit`: a head node by `ray start` on this machine, and a small `train` and `tune` as its jobs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.cluster import DATASET, SETTINGS
from tests.support.paths import ROOT
from tests.support.sweeps import TINY

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def submit() -> Iterator[Callable[..., str]]:
    """Submit a job to a head node of our own, wait for it; returns what it printed."""
    # A folder and ports of its own, and no `ray stop`: another Ray of this machine must not notice.
    folder = tempfile.mkdtemp(prefix="rl-mba-")  # short: names of sockets are
    port = free_port()
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    environment.pop("RAY_ADDRESS", None)
    start = ["start", "--head", "--block", "--port=0", f"--temp-dir={folder}", "--num-cpus=2", "--node-ip-address"]
    start += ["127.0.0.1", "--include-dashboard=true", f"--dashboard-port={port}", "--dashboard-agent-listen-port=0"]
    start += [f"--ray-client-server-port={free_port()}", "--min-worker-port=0", "--max-worker-port=0"]
    log = Path(folder) / "start.log"
    with log.open("wb") as said:
        head = subprocess.Popen(
            [BIN / "ray", *start], env=environment, stdout=said, stderr=said, start_new_session=True
        )
    address = ["--address", f"http://127.0.0.1:{port}"]

    def run(*words: str) -> str:
        command = [BIN / "ray", "job", "submit", *address, "--working-dir", ".", "--", "python", "run.py", *words]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False
        )
        assert done.returncode == 0 and "succeeded" in done.stdout, done.stdout + done.stderr
        return done.stdout

    try:
        until = time.monotonic() + 90
        listing = [BIN / "ray", "job", "list", *address]
        while subprocess.run(listing, env=environment, capture_output=True, timeout=90, check=False).returncode:
            assert head.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(1)
        yield run
    finally:
        head.send_signal(signal.SIGTERM)  # ends what --block watches over
        try:
            head.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def test_train(submit, tmp_path):
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    out = tmp_path / "run"
    said = submit("train", "--dataset", DATASET, "--out", str(out), "--num-env-runners", "2", *settings)
    assert "TensorBoard" in said
    history = (out / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in history] == [1, 2, 3]


def test_tune(submit, tmp_path):
    file, out = tmp_path / "sweep.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(TINY | {"trials": 3, "concurrent": 2}))
    said = submit("tune", "--config", str(file), "--out", str(out))
    assert "3 of 3 ended" in said
    assert len(json.loads((out / "pareto.json").read_text())["trials"]) == 3
