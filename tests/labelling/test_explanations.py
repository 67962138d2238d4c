"""Why a sample was chosen: shares of all that spoke for it, in the words of the features' records."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from envs.candidates import FEATURES
from labelling.explanations import TOGETHER, UNNAMED, contributions, in_words
from policies.batch_features import BATCH_FEATURES
from policies.selector import Selector, SelectorConfig
from tests.support.observations import FEW, random_observation, random_selector

PICKS = torch.tensor([[0, 3, 5]])


def one_row(seed: int = 0) -> dict[str, Tensor]:
    observation = random_observation(seed, rows=1)
    observation["valid"][:] = 1
    return observation


def shares(line: str) -> dict[str, int]:
    return {words: int(share) for words, share in re.findall(r"(.+?) \((\d+)%\)(?:; )?", line)}


def with_weight(name: str, weight: float, **config) -> Selector:
    static = (name,) if name in FEATURES else ("margin",)
    moving = (name,) if name in BATCH_FEATURES else ()
    selector = Selector(SelectorConfig(features=static, batch_features=moving, initial="zero", **config))
    selector.weights.data[selector.names.index(name), 0] = weight
    return selector


@pytest.mark.parametrize("name", [*FEATURES, *BATCH_FEATURES])
def test_each_feature_speaks_in_the_words_of_its_record(name: str) -> None:
    """The words for high where more of it was wanted and is there, those for low where less was."""
    observation = one_row(2)
    observation["features"] = observation["features"][..., :1]
    words = {**FEATURES, **BATCH_FEATURES}[name].words
    seen = set()
    for weight in (1.0, -1.0):
        selector = with_weight(name, weight)
        slots = selector.select(observation, 4)
        parts, values = contributions(selector, observation, slots)
        at = selector.names.index(name)
        for line, part, value in zip(in_words(selector, observation, slots), parts, values, strict=True):
            assert line == (f"{words[value[at] <= 0]} (100%)" if part[at] > 0 else UNNAMED)
            seen.add(line)
    assert {f"{w} (100%)" for w in words} <= seen


def test_features_that_say_nearly_the_same_are_one_reason() -> None:
    observation = one_row()
    selector = Selector(SelectorConfig(features=("margin", "density", "entropy"), batch_features=(), initial="zero"))
    selector.weights.data[:, 0] = 1.0
    for slot in range(3):
        observation["features"][0, slot] = torch.tensor([0.9, 0.9, 0.9])
    for line in in_words(selector, observation, torch.tensor([[0, 1, 2]])):
        unsure, dense = (FEATURES[name].words[0] for name in ("entropy", "density"))
        assert list(shares(line)) == [unsure, dense]
        assert sum(shares(line).values()) in (99, 100, 101)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1e3])
def test_the_mlp_is_counted_among_what_spoke(scale: float) -> None:
    """A policy whose MLP decides does not explain its picks by its linear part."""
    observation, selector = one_row(1), random_selector(1, mlp=(8,))
    with torch.no_grad():
        selector.mlp[-1].weight.mul_(scale)
    slots = selector.select(observation, 3)
    for line in in_words(selector, observation, slots):
        named = shares(line)
        if scale > 1:
            assert named == {TOGETHER: named[TOGETHER]}
            assert named[TOGETHER] > 95
        else:
            assert TOGETHER not in named


def test_shares_are_of_linear_part_and_mlp_together() -> None:
    observation = one_row(3)
    selector = with_weight("margin", 1.0, mlp=(4,))
    observation["features"] = observation["features"][..., :1]
    for p in selector.mlp.parameters():
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(5))
    slots = selector.select(observation, 3)
    parts, values = contributions(selector, observation, slots)
    residual = selector.residual(observation).detach()[0]
    residual = residual[slots[0]] - residual.mean()
    mixed = 0
    for line, (part,), (value,), extra in zip(
        in_words(selector, observation, slots), parts, values, residual, strict=True
    ):
        spoke = {FEATURES["margin"].words[value <= 0]: float(part), TOGETHER: float(extra)}
        spoke = {words: amount for words, amount in spoke.items() if amount > 0}
        for words, share in shares(line).items():
            assert share == pytest.approx(100 * spoke[words] / sum(spoke.values()), abs=0.6)
        mixed += len(spoke) == 2
    assert mixed


def test_a_policy_without_linear_weights_names_no_feature() -> None:
    selector = random_selector(0, linear=False, mlp=(4,), batch_features=())
    assert in_words(selector, one_row(), PICKS) == [UNNAMED] * 3


def test_contributions_add_up_to_the_utility_above_the_mean() -> None:
    observation, selector = one_row(4), random_selector(4, features=FEW, batch_features=())
    parts, _ = contributions(selector, observation, PICKS)
    utility = selector._static(observation)[0].detach()[0]
    torch.testing.assert_close(parts.sum(1), utility[PICKS[0]] - utility.mean())
