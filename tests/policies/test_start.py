"""Where training starts: weights by name, whatever features and state the policy that ships has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from envs.candidates import DEFAULT_FEATURES
from envs.errors import PolicyError
from policies import policy_file
from policies.batch_features import DEFAULT_BATCH_FEATURES
from policies.policy_file import PolicyCard, load_policy, pretrained_policy, save_policy
from policies.selector import STARTS, Selector, SelectorConfig
from policies.start import describe_start, initial_selector, seen_before

SEEN = [{"name": "emoji", "fingerprint": "abc", "labels": 7}]


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy in place of the one that ships: its weights are 1, 2 for margin, 3, 4 for density, 5, 6 by batch."""
    selector = Selector(SelectorConfig(features=("margin", "density"), batch_features=("gradient_distance",)))
    selector.weights.data = torch.arange(1.0, 7.0).reshape(3, 2)
    save_policy(selector, PolicyCard(trained_on=SEEN), tmp_path)
    monkeypatch.setattr(policy_file, "PRETRAINED", tmp_path)
    return tmp_path


def test_by_default_training_starts_as_the_policy_that_ships() -> None:
    """As far as names agree: this must hold for another file with other features, too."""
    policy, card = load_policy(pretrained_policy())
    config, theirs = SelectorConfig(), policy.named_weights()
    named = initial_selector(config).named_weights()
    assert named == {name: theirs.get(name, 0.0) for name in named}
    assert any(named.values())
    assert seen_before(config) == card.trained_on


def test_weights_are_taken_by_name(shipped: Path) -> None:
    config = SelectorConfig(
        features=("entropy", "density"),
        batch_features=("class_share", "gradient_distance"),
        state=("validation_accuracy", "progress"),
    )
    expected = [[0.0, 0, 0], [3, 0, 4], [0, 0, 0], [5, 0, 6]]
    assert initial_selector(config).weights.tolist() == expected
    assert describe_start(config) == (
        "start      the policy that ships: 2 of its 3 features; at 0: entropy, class_share; without margin"
    )
    assert seen_before(config) == SEEN


def test_a_policy_that_is_blind_to_progress_takes_the_weights_of_half_an_episode(shipped: Path) -> None:
    config = SelectorConfig(features=("margin", "density"), batch_features=("gradient_distance",), state=())
    assert initial_selector(config).weights.tolist() == [[2.0], [5.0], [8.0]]
    assert "halfway through an episode" in describe_start(config)


def test_an_mlp_beside_linear_weights_adds_nothing_at_first(shipped: Path) -> None:
    config = SelectorConfig(features=("margin", "density"), batch_features=(), mlp=(4,))
    selector = initial_selector(config)
    assert selector.weights.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    last = selector.mlp[-1]
    assert not last.weight.any() and not last.bias.any()
    assert describe_start(config).endswith("without gradient_distance; the MLP adds nothing yet")


def test_an_mlp_alone_takes_nothing(shipped: Path) -> None:
    config = SelectorConfig(features=("margin",), batch_features=(), linear=False, mlp=(4,))
    assert "random weights" in describe_start(config) and seen_before(config) == []
    (shipped / "policy.json").unlink()
    assert not hasattr(initial_selector(config), "weights")  # and no file is missed


@pytest.mark.parametrize("name", STARTS)
def test_every_start_has_weights_and_a_line(name: str) -> None:
    config = SelectorConfig(initial=name)
    assert bool(initial_selector(config).weights.any()) == (name != "zero")
    assert len(describe_start(config)) <= 120
    assert (seen_before(config) == []) == (name != "pretrained")


def test_a_saved_policy_does_not_depend_on_the_one_that_ships(shipped: Path, tmp_path: Path) -> None:
    config = SelectorConfig(features=("margin",), batch_features=())
    folder = save_policy(initial_selector(config), PolicyCard(), tmp_path / "mine")
    (shipped / "policy.json").unlink()
    assert load_policy(folder)[0].weights.tolist() == [[1.0, 2.0]]


def test_a_missing_file_is_named_with_what_to_do(shipped: Path) -> None:
    (shipped / "policy.json").unlink()
    with pytest.raises(PolicyError, match=r"is missing: .* set policy\.initial=badge to start without"):
        initial_selector(SelectorConfig())


def test_hand_tuned_weights_move_from_dense_to_uncertain() -> None:
    config = SelectorConfig(initial="hand_tuned")
    named = initial_selector(config).named_weights()
    assert named["density"] + named["density*progress"] == 0.0
    assert named["density"] == named["batch_distance"] == 2.0
    assert named["margin"] == named["gradient_distance"] == 1.0
    assert sum(v != 0 for v in named.values()) == 6
    assert len(named) == 2 * len(DEFAULT_FEATURES + DEFAULT_BATCH_FEATURES)
