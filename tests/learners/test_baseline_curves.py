"""The reward's baseline curves: right, computed once, and anew when something that decides them changes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from envs.errors import ConfigError, RLMBAError, StrategyError
from envs.models.frozen.trainer import FrozenConfig
from envs.multimodal_al import EnvConfig
from envs.simulation import ProtocolConfig
from envs.source import Source
from examples.task_model import CentroidConfig
from learners import baseline_curves as module
from learners.baseline_curves import baseline_curves, cache_folder
from policies.strategies import get_strategy

pytestmark = pytest.mark.usefixtures("one_ray")

CONFIG = EnvConfig(
    datasets=("synthetic:samples=300,classes=3,modalities=2,dim=6,seed=1",),
    protocol=ProtocolConfig(initial_labels=6, batch_size=3, rounds=2),
    model=FrozenConfig(hidden=6, steps=5),
    starts=18,  # more than one part
    copies=2,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RL_MBA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "baseline_curves"


def files(cache: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in cache.glob("*.npz")}


def test_curves_are_what_the_strategies_reach_and_are_played_once(cache: Path) -> None:
    told: list[tuple[int, int]] = []
    curves = baseline_curves(CONFIG, ("margin", "random"), lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    source = Source(CONFIG.datasets[0], CONFIG.model, CONFIG.protocol, CONFIG.seed)
    for name in ("margin", "random"):
        round_ = source.simulation.reset([source.start(17)])
        expected = [source.simulation.measure().accuracy.item()]
        for _ in range(2):
            round_ = source.simulation.label(get_strategy(name)(round_, 3))
            expected.append(source.simulation.measure().accuracy.item())
        np.testing.assert_allclose(curves[name][0, 17], expected, atol=1e-6)
    before = files(cache)
    assert len(before) == 4
    told.clear()
    again = baseline_curves(CONFIG, ("random", "margin"), lambda done, total: told.append((done, total)))
    assert told == []  # nothing was played
    assert files(cache) == before
    for name, curve in curves.items():
        np.testing.assert_array_equal(again[name], curve)
    # A further strategy plays itself alone; a damaged file is played again.
    baseline_curves(CONFIG, ("random", "entropy"))
    assert len(files(cache)) == 6
    assert {n: t for n, t in files(cache).items() if n in before} == before
    damaged = cache / min(before)
    damaged.write_bytes(damaged.read_bytes()[:100])
    for name, curve in baseline_curves(CONFIG, ("margin", "random")).items():
        np.testing.assert_array_equal(curve, curves[name])


def test_a_fault_arrives_in_words_and_keeps_what_is_finished(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = module._play

    def play(config: EnvConfig, strategy: str, source: int, low: int) -> np.ndarray:
        if strategy == "margin":
            return whole(config, strategy, source, low)
        if strategy == "entropy":
            os._exit(1)
        raise StrategyError("badge cannot play.")

    monkeypatch.setattr(module, "_play", play)
    monkeypatch.setattr(module, "cores", lambda: 1)
    with pytest.raises(RLMBAError) as caught:
        baseline_curves(CONFIG, ("margin", "badge"))
    assert (type(caught.value), str(caught.value)) == (StrategyError, "badge cannot play.")
    kept = files(cache)
    assert len(kept) == 2
    with pytest.raises(RLMBAError, match=r"^A process that plays baselines ended early \([^\n]+\); see whether"):
        baseline_curves(CONFIG, ("margin", "entropy"))
    assert files(cache) == kept


class OtherModel(FrozenConfig):
    """The same settings, other code."""


def test_whatever_decides_a_curve_is_in_its_key() -> None:
    def key(config: EnvConfig = CONFIG, fingerprint: str = "a", strategy: str = "margin", low: int = 0) -> str:
        return module._key(config, fingerprint, strategy, low)

    keys = [
        key(),
        key(fingerprint="b"),
        key(strategy="badge"),
        key(low=16),
        key(dataclasses.replace(CONFIG, seed=1)),
        key(dataclasses.replace(CONFIG, starts=5)),
        key(dataclasses.replace(CONFIG, protocol=dataclasses.replace(CONFIG.protocol, rounds=3))),
        key(dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, steps=6))),
        key(dataclasses.replace(CONFIG, model=OtherModel(**vars(CONFIG.model)))),  # of another file
        key(dataclasses.replace(CONFIG, model=CentroidConfig())),
        key(strategy="examples.strategy:dense_doubt"),
    ]
    assert len(set(keys)) == len(keys)
    assert key(dataclasses.replace(CONFIG, copies=4)) == key()  # copies only repeat


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("RL_MBA_CACHE", "/named")
    assert cache_folder() == Path("/named")
    monkeypatch.delenv("RL_MBA_CACHE")
    assert cache_folder() == Path("/x/rl-mba")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder() == Path("/home/somebody/.cache/rl-mba")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RL_MBA_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="RL_MBA_CACHE"):
        baseline_curves(CONFIG, ("margin",))
    assert os.listdir(tmp_path) == ["file"]
