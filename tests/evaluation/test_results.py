"""What makes a kept result another one, and what does not; and the line that says how far a comparison is."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.models.frozen.model import TaskModelConfig
from envs.pools.partition import evaluation_roles
from envs.pools.pool import Pool
from envs.round import Round
from envs.simulation import ProtocolConfig, Start, draw_start
from evaluation.playing import Runs
from evaluation.results import Results, describe_policy, describe_strategy, result_key
from policies.strategies.random import random
from policies.strategies.uncertainty import entropy, margin
from runtime.tasks import Progress

PROTOCOL = ProtocolConfig(initial_labels=8, batch_size=4, rounds=2)


@pytest.fixture
def starts(pool: Pool) -> list[Start]:
    return [draw_start(evaluation_roles(pool, seed), seed, PROTOCOL) for seed in (1, 2)]


def test_all_that_decides_is_in_the_key(pool: Pool, starts: list[Start], monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        "fingerprint": pool.fingerprint,
        "starts": starts,
        "protocol": PROTOCOL,
        "model": TaskModelConfig(),
        "chooser": describe_strategy("random", random),
    }
    other_labels = dataclasses.replace(starts[0], initial=starts[0].initial[::-1] + 1)
    keys = [
        result_key(**parts | change)
        for change in (
            {},
            {"fingerprint": "another"},
            {"starts": starts[::-1]},
            {"starts": starts[:1]},
            {"starts": [other_labels, starts[1]]},
            {"protocol": dataclasses.replace(PROTOCOL, rounds=3)},
            {"protocol": dataclasses.replace(PROTOCOL, amcb_floor=0.01)},
            {"model": TaskModelConfig(steps=7)},
            {"chooser": describe_strategy("margin", margin)},
            {"chooser": describe_strategy("entropy", entropy)},  # of the same file
            {"chooser": describe_strategy("random", random) | {"code": "0" * 64}},
        )
    ]
    assert len(set(keys)) == len(keys)
    assert result_key(**parts) == keys[0]
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert result_key(**parts) != keys[0]


def with_power(power: float) -> Callable[[Round, int], Tensor]:
    return lambda round_, batch_size: random(round_, int(batch_size * power))


def test_the_state_of_a_strategy_counts() -> None:
    assert describe_strategy("x", with_power(1.0)) == describe_strategy("x", with_power(1.0))
    assert describe_strategy("x", with_power(1.0)) != describe_strategy("x", with_power(2.0))
    partials = [functools.partial(random, extra=extra) for extra in (1, 2)]
    assert describe_strategy("x", partials[0]) != describe_strategy("x", partials[1])
    assert describe_strategy("x", partials[0])["function"] == "policies.strategies.random.random"


def test_a_policy_is_what_it_weighs() -> None:
    first = describe_policy("ab", {"features": ("margin",)}, {"per_pick": 40})
    assert first == describe_policy("ab", {"features": ("margin",)}, {"per_pick": 40})
    assert first != describe_policy("cd", {"features": ("margin",)}, {"per_pick": 40})
    assert first != describe_policy("ab", {"features": ("density",)}, {"per_pick": 40})
    assert first != describe_policy("ab", {"features": ("margin",)}, {"per_pick": 20})


def test_only_runs_of_these_starts_are_believed(starts: list[Start], tmp_path: Path) -> None:
    notes: list[str] = []
    results = Results(tmp_path, notes.append)
    runs = Runs(**{f.name: np.arange(2.0) for f in dataclasses.fields(Runs)})
    runs = dataclasses.replace(runs, starts=np.array([s.digest for s in starts]))
    results.put("key", runs)
    back = results.get("key", starts)
    assert all(np.array_equal(getattr(back, f.name), getattr(runs, f.name)) for f in dataclasses.fields(Runs))
    assert results.get("other", starts) is None
    assert notes == []
    assert results.get("key", starts[::-1]) is None
    results.store.put("key", {"starts": runs.starts})
    assert results.get("key", starts) is None
    assert len(notes) == 2
    assert all("key.npz does not hold" in note for note in notes)


def test_progress_counts_what_was_there_and_estimates_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 20.0, 30.0, 40.0])
    monkeypatch.setattr("runtime.tasks.time.perf_counter", lambda: next(clock))
    lines: list[str] = []
    line = Progress(lines.append, total=8, ready=5)
    line.tick()  # nothing new to say where lines stay
    for _ in range(3):
        line.advance()
    line.end()
    assert lines == [
        "compare: 6/8 chunks (5 already there), 20 s",
        "compare: 7/8 chunks (5 already there), 30 s, about 10 s to go",
        "compare: 8/8 chunks (5 already there), 40 s",
    ]
