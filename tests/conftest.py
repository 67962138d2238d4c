"""Shared by the test files: one thread, small pools, and a simulation that stands before its first pick."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from envs.models.frozen.trainer import FrozenConfig
from envs.pools import Pool
from envs.round import Round
from envs.simulation import ProtocolConfig, Simulation
from envs.source import training_starts, training_trainer
from envs.sources import open_dataset
from tests.support.long import LONG
from tests.support.paths import ROOT

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with LONG."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


# A gate should fail for what a change did, not for what a random search found that day.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests leave the user's cache alone."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["RL_MBA_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def pool() -> Pool:
    """Two complete modalities, four classes; 92 pool rows in an episode."""
    return open_dataset("synthetic:samples=400,classes=4,modalities=2,dim=8,seed=1")


@pytest.fixture(scope="session")
def missing_pool() -> Pool:
    """Three modalities of which a third is missing."""
    return open_dataset("synthetic:samples=400,classes=4,modalities=3,dim=6,missing=0.33,seed=2")


@pytest.fixture(scope="session")
def single_pool() -> Pool:
    """One modality."""
    return open_dataset("synthetic:samples=300,classes=3,modalities=1,dim=5,seed=3")


@pytest.fixture(scope="session")
def begin() -> Callable[..., tuple[Simulation, Round]]:
    """Make a Simulation and its first Round: begin(pool, seeds=(0,), copies=1, **protocol)."""

    def make(pool: Pool, seeds: tuple[int, ...] = (0,), copies: int = 1, **changes) -> tuple[Simulation, Round]:
        protocol = ProtocolConfig(**({"initial_labels": 8, "batch_size": 4, "rounds": 3} | changes))
        simulation = Simulation(training_trainer(pool, FrozenConfig(hidden=8, steps=10)), protocol)
        return simulation, simulation.reset(training_starts(pool, protocol, seeds), copies)

    return make


@pytest.fixture
def without_ray(tmp_path: Path) -> Callable[..., str]:
    """Run code in a process that cannot import ray; returns what it prints."""
    fake = tmp_path / "fake" / "ray"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise ImportError('ray must not be imported here')\n")

    def run(code: str, *arguments: str) -> str:
        paths = [str(fake.parent), str(ROOT)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def one_ray() -> Iterator[None]:
    """A Ray for all tests of this process that need one: starting it takes longer than most of them."""
    from runtime.cluster import local_ray  # not above: most tests need no ray

    with local_ray(2):
        yield


@pytest.fixture
def tables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without pictures and page, which take seconds."""
    monkeypatch.setattr("evaluation.report.write.pictures.draw", lambda *_: ())
    monkeypatch.setattr("evaluation.report.write.render_page", lambda *_: "")
