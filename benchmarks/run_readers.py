"""Readers of what trainings, sweeps and comparisons leave behind, with valid files; see benchmarks.readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from envs.simulation import Simulation
from envs.source import evaluation_starts, evaluation_trainer
from envs.sources import open_dataset
from evaluation.leave_one_out.plan import LeaveOneOutConfig, make_plan
from evaluation.playing import play
from evaluation.runs import Played
from evaluation.summarise import summarise_all
from evaluation.summary import read_summary
from labelling.label_studio.server import exported, linked, there
from labelling.label_studio.tasks import answers_of
from labelling.project import Project
from learners.algorithms.checkpoint import LearnedState, read_state, write_state
from learners.algorithms.evolution import EvolutionTrainer
from learners.run_folder import RunFolder
from learners.settings import TrainConfig, build
from learners.storage import RunCopy
from learners.sweeps.search import SLICE, slices_done
from learners.training import opened, policy_card
from policies.strategies import get_strategy

SERVER = "http://localhost:8080"
_POOLS = [f"synthetic:samples=60,classes=2,modalities=2,dim=3,seed={seed}" for seed in range(3)]
_SETTINGS = {
    "algorithm": "evolution",
    "datasets": _POOLS,
    "starts": 2,
    "protocol": {"initial_labels": 4, "batch_size": 2, "rounds": 2},
    "model": {"steps": 2},
    "candidates": {"per_pick": 4},
    "evolution": {"generations": 3, "population": 4, "starts": 1},
    "resources": {"num_env_runners": 0},
}
_CONFIG = build(TrainConfig, _SETTINGS)
_ALONE = build(TrainConfig, _SETTINGS | {"datasets": _POOLS[:1]})


def _write_history(folder: Path) -> None:
    run = RunFolder(folder)
    run.root.mkdir(parents=True)
    for number in range(1, 6):
        run.append_history({"iteration": number, "episodes": 10 * number, "seconds": 1.5, "aulc": 0.5})


def _read_history(folder: Path) -> Any:
    return RunFolder(folder).truncate_history(4)


def _record_plan(folder: Path) -> None:
    """Writes the plan into an empty folder, and compares it with the one that is there."""
    make_plan(LeaveOneOutConfig(_CONFIG)).record(RunFolder(folder))


def _write_summary(folder: Path) -> None:
    """A comparison on two data sets, with a policy's name beside the strategies'."""
    folder.mkdir()
    played = []
    facts = {"policies": {"learned": {"labels_used": 5}}, "protocol": asdict(_CONFIG.protocol)}
    for name in _POOLS[:2]:
        pool = open_dataset(name)
        starts = evaluation_starts(pool, _CONFIG.protocol, range(10_000, 10_006))
        simulation = Simulation(evaluation_trainer(pool, _CONFIG.model), _CONFIG.protocol)
        chosen = {"learned": "margin", "random": "random", "entropy": "entropy"}
        runs = {shown: play(simulation, starts, shown, get_strategy(strategy)) for shown, strategy in chosen.items()}
        played.append(Played(pool, _CONFIG.protocol, runs, facts))
    content = json.dumps(summarise_all(played).to_json(), allow_nan=False)
    (folder / "summary.json").write_text(content, encoding="utf-8")


def _read_comparison(folder: Path) -> Any:
    return read_summary(folder / "summary.json").to_json()


def _write_evolution(folder: Path) -> None:
    trainer = _trainer()
    for _ in range(2):
        trainer.step()
    (folder / "000002").mkdir(parents=True)
    trainer.save(str(folder / "000002"))


def _read_evolution(folder: Path) -> Any:
    trainer = _trainer()
    trainer.restore(folder / "000002")
    return trainer.selector().named_weights(), trainer.card.labels_used


@cache  # restoring puts all of its state in place of what was there
def _trainer() -> EvolutionTrainer:
    return EvolutionTrainer(_ALONE, policy_card(_ALONE, opened(_ALONE)))


def _write_gradients(folder: Path) -> None:
    (folder / "000002").mkdir(parents=True)
    row = np.ones((2, 3), np.float32)
    state = LearnedState({"w": row}, {"weights": row}, {0: {"exp_avg": row}}, 4, 2, {"count": 3}, {0: 5})
    write_state(state, folder / "000002")


def _read_gradients(folder: Path) -> LearnedState:
    return read_state(folder / "000002")


def _write_slice(folder: Path) -> None:
    folder.mkdir()
    (folder / SLICE).write_text(json.dumps({"done": 1}))


def _read_slice(folder: Path) -> int:
    return slices_done(folder / SLICE, 2)


def _write_copy(folder: Path) -> None:
    _write_history(folder / "run")
    (folder / "run" / "checkpoints" / "000001").mkdir(parents=True)
    RunCopy(str(folder / "storage"), RunFolder(folder / "run")).finish()


def _read_copy(folder: Path) -> Any:
    return RunCopy(str(folder / "storage"), RunFolder(folder / "run")).complete()


def write_link(project: Project) -> None:
    link = {"url": SERVER, "project": 7}
    (project.path / "label_studio.json").write_text(json.dumps(link) + "\n", encoding="utf-8")


def read_link(folder: Path) -> int | None:
    return linked(Project(folder / "p"), SERVER)


def read_answer(folder: Path) -> Any:
    """What a server answers is what lies in the file."""
    exports = SimpleNamespace(download_sync=lambda *_, **__: [(folder / "e.json").read_bytes()])
    tasks = exported(SimpleNamespace(projects=SimpleNamespace(exports=exports)), SERVER, 7)
    return sorted(there(tasks, 1)), answers_of(tasks, SERVER)


# What writes valid files into a folder that is not there yet, what reads them, which of them are damaged.
LEFT: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any], str]] = {
    "history of a run": (_write_history, _read_history, "*.jsonl"),
    "copy of a run": (_write_copy, _read_copy, "storage/*/copied.json"),
    "evolution checkpoint": (_write_evolution, _read_evolution, "*/*.npz"),
    "gradient checkpoint": (_write_gradients, _read_gradients, "*/*"),
    "slices of a trial": (_write_slice, _read_slice, "*.json"),
    "leave-one-out plan": (_record_plan, _record_plan, "plan.json"),
    "summary": (_write_summary, _read_comparison, "*.json"),
}
