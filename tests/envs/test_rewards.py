"""Reward terms that somebody adds from outside; `tests/envs/test_environment.py` has ours at work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.errors import ConfigError
from envs.rewards import TERMS, Outcome, RewardConfig, reward
from envs.simulation import Measurements
from learners.settings import TrainConfig, build, merge, parse_overrides, read_yaml, to_yaml
from learners.sweeps.config import SweepConfig
from tests.support.environment import ACCURACY_ALONE

OWN = "examples.reward_term:worst_change"


def outcome() -> Outcome:
    def measured(first: float, second: float) -> Measurements:
        accuracy = torch.tensor([0.5])
        return Measurements(accuracy, accuracy, torch.tensor([[first, second]]), accuracy)

    return Outcome(measured(0.25, 0.5), measured(0.5, 0.375), torch.tensor([[0.5, 0.5]]), torch.zeros(1))


def test_a_term_by_module_is_weighed_and_told() -> None:
    total, terms = reward(outcome(), RewardConfig(**ACCURACY_ALONE, extra={OWN: 2.0}))
    assert list(terms) == [*TERMS, OWN]
    assert terms[OWN].tolist() == [-0.125]  # the second modality lost
    assert total.tolist() == [0.5 - 2.0 * 0.125]


def test_a_term_by_name_is_told_without_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(outcome: Outcome) -> Tensor:
        return outcome.before.accuracy - outcome.after.accuracy - 1.0

    monkeypatch.setitem(TERMS, "lost", lost)
    without, terms = reward(outcome(), RewardConfig(**ACCURACY_ALONE))
    assert terms["lost"].tolist() == [-1.0] and without.tolist() == [0.5]
    assert reward(outcome(), RewardConfig(**ACCURACY_ALONE, extra={"lost": 0.25}))[0].tolist() == [0.25]
    alone = RewardConfig(**dict.fromkeys(ACCURACY_ALONE, 0.0), extra={"lost": 1.0})
    assert reward(outcome(), alone)[0].tolist() == [-1.0]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"hard_third": 1.0}, "reward.extra names 'hard_third', which has a weight of its own: reward.hard_third."),
        ({"mine": 1.0}, "Unknown reward term 'mine'."),
        ({OWN: math.inf}, f"reward.extra gives '{OWN}' the weight inf; it must be a finite number."),
        ({OWN: True}, f"reward.extra gives '{OWN}' the weight True; it must be a finite number."),
    ],
)
def test_mistakes_are_named(extra: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        RewardConfig(extra=extra)
    assert words in str(error.value)


def test_a_weight_of_zero_is_none() -> None:
    with pytest.raises(ConfigError, match="Every reward weight is 0"):
        RewardConfig(**dict.fromkeys(ACCURACY_ALONE, 0.0), extra={OWN: 0.0})


def test_settings_name_it_whole_or_at_its_dots(tmp_path: Path) -> None:
    config = build(TrainConfig, parse_overrides([f"reward.extra.{OWN}=0.5"]))
    assert config.reward.extra == {OWN: 0.5}
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    assert build(TrainConfig, read_yaml(file)) == config
    above = merge(read_yaml(file), parse_overrides([f"reward.extra.{OWN}=0.75"]))
    assert build(TrainConfig, above).reward.extra == {OWN: 0.75}
    with pytest.raises(ConfigError, match=rf"reward\.extra\.{OWN} is 'much': input should be a valid number"):
        build(TrainConfig, parse_overrides([f"reward.extra.{OWN}=much"]))
    assert hash(config.reward) == hash(build(TrainConfig, read_yaml(file)).reward)


def test_a_sweep_searches_its_weight() -> None:
    sweep = SweepConfig(space={f"reward.extra.{OWN}": {"uniform": [0.25, 1.0]}})
    assert sweep.first().reward.extra == {OWN: 0.25}
    assert sweep.train_config({f"reward.extra.{OWN}": 0.7}).reward.weight(OWN) == 0.7
