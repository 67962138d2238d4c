"""What makes a kept result another one, and what does not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.models.frozen.trainer import FrozenConfig
from envs.pools import Pool
from envs.pools.partition import Start, evaluation_roles
from envs.round import Round
from envs.simulation import ProtocolConfig
from envs.source import draw_start
from evaluation.results import Results, describe_policy, describe_strategy, result_key
from evaluation.runs import Runs
from examples import batch_feature, feature
from examples.task_model import CentroidConfig
from policies.strategies.random import random
from policies.strategies.uncertainty import entropy, margin

PROTOCOL = ProtocolConfig(initial_labels=8, batch_size=4, rounds=2)


@dataclasses.dataclass(frozen=True)
class OtherConfig(FrozenConfig, prefix="model."):
    """Another kind of task model."""


@pytest.fixture
def starts(pool: Pool) -> list[Start]:
    return [draw_start(evaluation_roles(pool, seed), seed, PROTOCOL) for seed in (1, 2)]


def test_all_that_decides_is_in_the_key(pool: Pool, starts: list[Start], monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {
        "fingerprint": pool.fingerprint,
        "starts": starts,
        "protocol": PROTOCOL,
        "model": FrozenConfig(),
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
            {"model": FrozenConfig(steps=7)},
            {"model": OtherConfig()},  # with the same fields
            {"model": CentroidConfig()},
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


def test_the_code_of_features_counts_that_are_not_ours() -> None:
    ours, *own = (
        describe_policy("ab", {"features": features, "batch_features": moving}, {})["code"]
        for features, moving in (
            (("margin", "density"), ("class_share",)),
            (("margin",), ()),
            ((feature.NAME,), ("class_share",)),
            (("margin",), (batch_feature.NAME,)),
        )
    )
    assert own[0] == ours  # it is in the hash already
    assert len({ours, *own}) == 3


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
