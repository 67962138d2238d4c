"""A policy's two files: written whole, read back, and refused by name where they are damaged."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from envs.candidates import CandidateConfig
from envs.errors import PolicyError
from policies.policy_file import CARD_FILE, WEIGHTS_FILE, PolicyCard, find_policy, load_policy, save_policy
from tests.support.observations import random_observation, random_selector


@pytest.mark.parametrize("config", [{}, {"mlp": (4, 3)}, {"batch_features": ("class_share", "gradient_distance")},
                                    {"linear": False, "mlp": (4,), "batch_features": ()}])  # fmt: skip
def test_a_saved_policy_picks_as_before(config: dict, tmp_path: Path) -> None:
    selector, observation = random_selector(7, **config), random_observation(7)
    card = PolicyCard(CandidateConfig("score", 5), [{"name": "emoji", "labels": 3}], 3, 10, 1, "paper", {"torch": "2"})
    save_policy(selector, card, tmp_path / "policy")
    for path in (tmp_path, tmp_path / "policy", tmp_path / "policy" / WEIGHTS_FILE, tmp_path / "policy" / CARD_FILE):
        loaded, loaded_card = load_policy(path)
        assert loaded_card == card
        assert loaded.config == selector.config
        assert torch.equal(loaded.select(observation, 5), selector.select(observation, 5))
    assert sorted(p.name for p in (tmp_path / "policy").iterdir()) == sorted([WEIGHTS_FILE, CARD_FILE])


def test_a_policy_can_be_replaced(tmp_path: Path) -> None:
    save_policy(random_selector(1), PolicyCard(), tmp_path)
    save_policy(random_selector(2), PolicyCard(seed=2), tmp_path)
    loaded, card = load_policy(tmp_path)
    assert card.seed == 2
    assert torch.equal(loaded.weights, random_selector(2).weights)
    shown = json.loads((tmp_path / CARD_FILE).read_text())["weights"]
    assert shown["margin"] == pytest.approx(loaded.weights[0, 0].item())


def test_a_policy_loads_where_ray_cannot_be_imported(tmp_path: Path, without_ray) -> None:
    save_policy(random_selector(8), PolicyCard(), tmp_path / "policy")
    code = (
        "import sys\n"
        "from policies.policy_file import load_policy\n"
        "import policies.strategies\n"
        "selector, card = load_policy(sys.argv[1])\n"
        "assert 'ray' not in sys.modules\n"
        "print(selector.named_weights()['margin'])\n"
    )
    printed = without_ray(code, str(tmp_path))
    assert math.isclose(float(printed), random_selector(8).named_weights()["margin"], rel_tol=1e-6)


def break_card(text: str):
    return lambda folder: (folder / CARD_FILE).write_text(text)


def edit_card(**changes):
    def edit(folder: Path) -> None:
        raw = json.loads((folder / CARD_FILE).read_text())
        (folder / CARD_FILE).write_text(json.dumps(raw | changes))

    return edit


def truncate_weights(folder: Path) -> None:
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])


def poison_weights(value: float):
    def poison(folder: Path) -> None:
        weights = random_selector(9).weights.detach().clone()
        weights[1, 1] = value
        save_file({"weights": weights}, folder / WEIGHTS_FILE)

    return poison


DAMAGE = {
    "card is no JSON": (break_card("{"), CARD_FILE),
    "card is empty": (break_card(""), CARD_FILE),
    "card is a list": (break_card("[1]"), CARD_FILE),
    "card lacks the selector": (break_card('{"format": 1}'), CARD_FILE),
    "card is binary": (lambda folder: (folder / CARD_FILE).write_bytes(b"\xff\xfe\x00"), CARD_FILE),
    "another version": (edit_card(format=99), CARD_FILE),
    "selector is no mapping": (edit_card(selector=[1]), CARD_FILE),
    "selector field is unknown": (edit_card(selector={"colour": 1}), CARD_FILE),
    "feature is unknown": (edit_card(selector={"features": ["beauty"]}), CARD_FILE),
    "feature is a number": (edit_card(selector={"features": [3]}), CARD_FILE),
    "features are null": (edit_card(selector={"features": None}), CARD_FILE),
    "mlp is of words": (edit_card(selector={"mlp": ["big"]}), CARD_FILE),
    "candidates rule is unknown": (edit_card(candidates={"rule": "best"}), CARD_FILE),
    "candidates cap is a word": (edit_card(candidates={"per_pick": "many"}), CARD_FILE),
    "weights are cut short": (truncate_weights, WEIGHTS_FILE),
    "weights are empty": (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b""), WEIGHTS_FILE),
    "weights are text": (lambda folder: (folder / WEIGHTS_FILE).write_text("hello" * 50), WEIGHTS_FILE),
    "weights are NaN": (poison_weights(float("nan")), WEIGHTS_FILE),
    "weights are infinite": (poison_weights(float("inf")), WEIGHTS_FILE),
    "weights of another shape": (
        lambda folder: save_file({"weights": torch.zeros(3, 2)}, folder / WEIGHTS_FILE), WEIGHTS_FILE,
    ),
    "weights of another name": (
        lambda folder: save_file({"w": torch.zeros(7, 2)}, folder / WEIGHTS_FILE), WEIGHTS_FILE,
    ),
    "weights file is missing": (lambda folder: (folder / WEIGHTS_FILE).unlink(), WEIGHTS_FILE),
    "card is missing": (lambda folder: (folder / CARD_FILE).unlink(), CARD_FILE),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_policy_is_an_error_that_names_the_file(damage: str, tmp_path: Path) -> None:
    save_policy(random_selector(9), PolicyCard(), tmp_path)
    load_policy(tmp_path)
    spoil, file = DAMAGE[damage]
    spoil(tmp_path)
    with pytest.raises(PolicyError) as error:
        load_policy(tmp_path)
    assert file in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_no_policy_at_a_path(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / WEIGHTS_FILE):
        with pytest.raises(PolicyError, match=str(path)):
            find_policy(path)
