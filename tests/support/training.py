"""Training by the command line, on settings that take seconds."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.paths import ROOT

RUN = ROOT / "run.py"

DATASET = "synthetic:samples=300,classes=3,modalities=2,dim=6,seed=1"

SMALL = [
    "protocol.initial_labels=6",
    "protocol.batch_size=3",
    "protocol.rounds=3",
    "model.steps=5",
    "candidates.per_pick=8",
    "learner.groups=2",
    "learner.copies=4",
    "learner.iterations=3",
    "starts=4",
]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(RUN), *map(str, arguments)]


def train_command(out: Path, *extra: str) -> list[str]:
    settings = [part for setting in SMALL for part in ("--set", setting)]
    return command("train", "--dataset", DATASET, "--out", out, "--num-env-runners", "0", *settings, *extra)


def run(arguments: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)


def run_together(commands: Iterable[list[str]]) -> list[str]:
    """What commands print that run at the same time."""
    processes = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for arguments in commands
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    for process, words in zip(processes, said, strict=True):
        assert process.returncode == 0, words
    return said
