"""Commands that take long, killed again and again until they end: train, compare and tune, on settings of seconds.

What they end with must be what they end with undisturbed, and no death may leave half a file under a file's name.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import evaluation.report.write  # noqa: F401  # here, and not in each child
import learners.sweeps.search  # noqa: F401
from benchmarks.kill import faults, processes
from benchmarks.kill.commands import Outcome, Running, load
from benchmarks.kill.found import Faults
from benchmarks.kill.whole import halves

MOMENT, STEP, SYNC, WRITE = WAYS = "at a moment", "at a step", "at a sync", "within a write"
_MAXIMUM = 900.0  # seconds after which a command counts as one that hangs: a busy machine takes minutes to start Ray
MOST_DEATHS = 6  # of one run; then it is left in peace
_POOL = "synthetic:samples=300,classes=3,modalities=2,dim=6,seed=1"
_PROTOCOL = {"protocol.initial_labels": 6, "protocol.batch_size": 3, "protocol.rounds": 2, "model.steps": 5}
_TRAINING = _PROTOCOL | {"candidates.per_pick": 8, "starts": 4}
_EVOLUTION = {"evolution.generations": 10, "evolution.population": 4, "evolution.starts": 3}
_REINFORCE = {"learner.iterations": 8, "learner.groups": 2, "learner.copies": 4}
_SWEEP = {
    "trials": 3,
    "concurrent": 1,
    "starts": 2,
    "space": {"reward.weakest_modality": {"choice": [0.0, 1.0, 2.0]}},
    "train": {
        "algorithm": "evolution",
        "datasets": [_POOL],
        "evolution": {"generations": 3, "starts": 1, "population": 4},
        "protocol": {"initial_labels": 6, "batch_size": 3, "rounds": 2},
        "model": {"steps": 5},
    },
}
_BROKEN = re.compile("cannot be read|is damaged|is not a readable|computed again")  # a reader met half a file


@dataclass(frozen=True)
class Long:
    """A command that takes long."""

    begin: list[str]
    go_on: list[str]  # after a death
    result: Callable[[Path], Any]  # what it ended with, in the same words whenever it is the same
    stage: Callable[[Path], str]  # how far it has come
    ways: tuple[str, ...]  # how it dies
    steps: int = 1  # in the file system, and fsyncs, that most runs have at least
    syncs: int = 1
    share: int = 1  # of the deaths


def _settings(values: dict[str, Any]) -> list[str]:
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


def _train(algorithm: str, settings: dict[str, Any]) -> list[str]:
    command = ["train", "--algorithm", algorithm, "--dataset", _POOL, "--num-env-runners", "0"]
    return [*command, *_settings(_TRAINING | settings)]


def long_commands(sweep: Path) -> dict[str, Long]:
    """By name; each lacks its --out.

    Args:
        sweep: file for the settings of `tune`.
    """
    sweep.write_text(json.dumps(_SWEEP), encoding="utf-8")
    compare = ["compare", "--dataset", _POOL, "--policy", "none", "--strategies", "random,badge", "--seeds", "21"]
    compare += ["--workers", "1", *_settings(_PROTOCOL)]
    resume = ["train", "--resume"]
    return {
        "train (evolution)": Long(
            _train("evolution", _EVOLUTION), resume, _trained, _stage_of_training, WAYS,
            850, 85, 14,
        ),
        "train (reinforce)": Long(
            _train("reinforce", _REINFORCE), resume, _trained_by_chance, _stage_of_training, (MOMENT, STEP), 700, 64, 2
        ),
        "compare": Long(compare, compare, _compared, _stage_of_comparison, (MOMENT, STEP, SYNC), 118, 27, 3),
        "tune": Long(
            ["tune", "--config", str(sweep)], ["tune", "--resume"], _swept, _stage_of_sweep, (MOMENT,), share=1
        ),
    }  # fmt: skip


class LongRuns:
    """A run of each command, killed until it ends and then begun anew; the undisturbed one that it must equal.

    Args:
        place: an empty folder.
    """

    def __init__(self, place: Path, rng: random.Random):
        self.place, self.rng = place, rng
        self.faults, self.tally = Faults(), Counter[str]()
        self.commands = long_commands(place / "sweep.yaml")
        self._names = [name for name, long in self.commands.items() for _ in range(long.share)]
        self._next = 0
        self._mark = processes.mark()
        self._undisturbed: dict[str, tuple[Any, float]] = {}  # its result, seconds
        self._deaths = Counter[str]()
        self._figures: dict[str, Any] = {}  # of settings of trials
        load([[*_train("evolution", _EVOLUTION), "--out", str(place / "first")]])  # what needs no Ray

    def next(self) -> str:
        """The command that comes next: each by its share, in an order drawn anew each time."""
        if self._next == 0:
            self.rng.shuffle(self._names)
        name = self._names[self._next]
        self._next = (self._next + 1) % len(self._names)
        return name

    def death(self, name: str) -> str:
        """How a command died; empty where it came to its end."""
        long, out = self.commands[name], self._out(name)
        if name not in self._undisturbed:
            self._learn(name)
        way = self.rng.choice(long.ways) if self._deaths[name] < MOST_DEATHS else ""
        outcome = self._attempt(name, long.go_on if out.exists() else long.begin, way)
        if "to resume; start one without --resume" in outcome.said:
            outcome = self._attempt(name, long.begin, way)
        if outcome.status in (-signal.SIGKILL, -signal.SIGXFSZ):
            self._deaths[name] += 1
            self.tally[f"{name}: {long.stage(out)}"] += 1
            return way
        if outcome.status:
            self.faults.add("other", f"{name} does not go on: {outcome.said[-1500:]}")
        elif other := difference(self._undisturbed[name][0], self._result(name)):
            self.faults.add("lost", f"{name} ends otherwise after {self._deaths[name]} deaths: {other}")
        self.tally[f"{name}: ended"] += 1
        self._deaths[name] = 0
        shutil.rmtree(out, ignore_errors=True)
        return ""

    def end(self) -> None:
        """Look for what commands that died have left running."""
        if left := processes.left(self._mark):
            self.faults.add("other", f"processes are left: {left}")

    def _out(self, name: str) -> Path:
        return self.place / re.sub(r"\W+", "_", name)

    def _learn(self, name: str) -> None:
        """Run the command undisturbed."""
        outcome = self._attempt(name, self.commands[name].begin, "")
        if outcome.status:
            raise RuntimeError(f"{name} does not work in peace: {outcome.said[-1500:]}")
        self._undisturbed[name] = self._result(name), outcome.seconds
        shutil.rmtree(self._out(name))

    def _attempt(self, name: str, command: list[str], way: str) -> Outcome:
        out, fault = self._out(name), self._fault(name, way)
        process = Running([[*command, "--out", str(out)]], lambda: processes.be(self._mark, fault))
        if way == MOMENT:
            end = time.monotonic() + self.rng.uniform(0, 1.1 * self._undisturbed[name][1])
            while time.monotonic() < end and process.runs():
                time.sleep(0.002)
            process.kill()
        outcome = process.end(_MAXIMUM)
        if outcome.traceback or _BROKEN.search(outcome.said):
            self.faults.add("traceback", f"{name} ({outcome.status}): {outcome.said[-1500:]}")
        for half in halves(out, passing="tune"):  # Ray Tune's own state, some of it pickles named .json
            self.faults.add("other", f"{name} leaves half a file: {half}")
        return outcome

    def _fault(self, name: str, way: str) -> Callable[[], None] | None:
        """What a child does to itself."""
        rng, long = self.rng, self.commands[name]
        if way == STEP:
            return faults.at_step(self._out(name), rng.randint(1, long.steps))
        if way == SYNC:
            return faults.at_sync(rng.randint(1, long.syncs), rng.random() < 0.5)
        return faults.within_write(round(10 ** rng.uniform(2, 5))) if way == WRITE else None

    def _result(self, name: str) -> Any:
        """What the run ended with. Trials are compared here: the same settings lead to the same figures."""
        found = self.commands[name].result(self._out(name))
        for settings, figures in found.pop("trials", []):
            if self._figures.setdefault(settings, figures) != figures:
                self.faults.add("lost", f"{name}: {settings} led to {self._figures[settings]} and to {figures}")
        return found


def difference(before: Any, now: Any, where: str = "") -> str:
    """Where two results differ first, and how; empty where they are the same."""
    if type(before) is type(now) and isinstance(before, dict | list):
        keys = list(before) if isinstance(before, dict) else range(len(before))
        if (list(now) if isinstance(now, dict) else range(len(now))) == keys:
            return next((words for key in keys if (words := difference(before[key], now[key], f"{where}/{key}"))), "")
    return "" if before == now else f"{where} was {before!r:.500} and is {now!r:.500}"


def _names(out: Path) -> list[str]:
    """What lies in a folder, without the names that differ from run to run."""
    found = (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    return sorted({re.sub(r"tfevents.*", "tfevents", name) for name in found})


def _trained(out: Path) -> dict[str, Any]:
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    card = json.loads((out / "policy" / "policy.json").read_text())
    return {
        "names": _names(out),
        "weights": (out / "policy" / "policy.safetensors").read_bytes(),
        "card": _without_times(card),
        "history": _without_times(rows),
    }


def _trained_by_chance(out: Path) -> dict[str, Any]:
    """Of an algorithm whose episodes after a resumption are other ones: all but figures and weights."""
    whole = _trained(out)
    return {
        "names": whole["names"],
        "card": {name: value for name, value in whole["card"].items() if name != "weights"},
        "history": [(row["iteration"], row["episodes"]) for row in whole["history"]],
    }


def _compared(out: Path) -> dict[str, Any]:
    rounds = pq.read_table(out / "rounds.parquet").to_pylist()
    summary = json.loads((out / "summary.json").read_text())
    return {"names": _names(out), "summary": _without_times(summary), "rounds": repr(_without_times(rounds))}


def _swept(out: Path) -> dict[str, Any]:
    content = json.loads((out / "pareto.json").read_text())
    trials = [(json.dumps(t["settings"]), t["objectives"]) for t in content["trials"]]
    runs = [_trained(run) for run in (out / "trials").iterdir()]
    return {
        "trials": trials,
        "number": len(trials),
        "chosen": sum(trial["chosen"] for trial in content["trials"]),
        "iterations": [[row["iteration"] for row in run["history"]] for run in runs],
        "names": sorted(path.name for path in out.iterdir()),
    }


def _without_times(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_times(part) for part in value]
    if not isinstance(value, dict):
        return value
    timed = ("seconds", "peak_memory", "training_seconds")
    return {name: _without_times(part) for name, part in value.items() if not name.startswith(timed)}


def _stage_of_training(out: Path) -> str:
    history, total = out / "history.jsonl", len(_names(out))
    done = len(history.read_bytes().splitlines()) if history.is_file() else 0
    if not done:
        return "before its first iteration" if total else "before its folder"
    return "at its end" if (out / "learning_curve.png").is_file() else "between iterations"


def _stage_of_comparison(out: Path) -> str:
    if (out / "rounds.parquet").is_file():
        return "in its report"
    return "between chunks" if list((out / "results").glob("*.npz")) else "before its first chunk"


def _stage_of_sweep(out: Path) -> str:
    trials = len(list((out / "trials").glob("*/learning_curve.png")))
    return f"after {trials} trials" if trials else "before its first trial's end"
