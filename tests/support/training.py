"""Training by the command line, on settings that take seconds."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from run import main
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
    return [sys.executable, str(RUN), *last_of_each([str(argument) for argument in arguments])]


def train_command(out: Path, *extra: str) -> list[str]:
    settings = [part for setting in SMALL for part in ("--set", setting)]
    return command("train", "--dataset", DATASET, "--out", out, "--num-env-runners", "0", *settings, *extra)


def last_of_each(words: list[str]) -> list[str]:
    """A command without the flags, and settings of --set, that later ones take the place of: none may come twice."""
    kept: dict[tuple[str, ...], list[str]] = {}
    at = 0
    while at < len(words):
        pair = words[at : at + 2]
        valued = len(pair) == 2 and pair[0].startswith("--") and not pair[1].startswith("--") and pair[0] != "--policy"
        entry = pair if valued else pair[:1]
        name = (entry[0], entry[1].partition("=")[0]) if entry[0] == "--set" else tuple(entry[:1])
        kept.pop(key := name if valued else (str(at),), None)
        kept[key] = entry
        at += len(entry)
    return [word for entry in kept.values() for word in entry]


def run(arguments: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)


def run_here(arguments: list[str]) -> int:
    """The exit status of a command in this process, which saves a start of Python, its imports and Ray."""
    with patch.object(sys, "argv", arguments[1:]):
        return main(last_of_each(arguments[2:]))


def go_on_to(iterations: int, out: Path) -> int:
    """Let a run, as its settings say now, take so many iterations; the exit status."""
    config, key = out / "config.yaml", "  iterations: "
    lines = [key + str(iterations) if line.startswith(key) else line for line in config.read_text().splitlines()]
    config.write_text("\n".join(lines) + "\n")
    return run_here(command("train", "--out", out, "--resume"))


def history(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 240.0) -> None:
    """Wait until training has come so far."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "training ended before the condition held"
        assert time.monotonic() < end, "the condition never held"
        time.sleep(0.02)
