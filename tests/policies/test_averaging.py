"""One policy from several: the mean direction, and a card that says where it comes from."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from envs.candidates import CandidateConfig
from envs.errors import PolicyError
from policies.averaging import EXPORT_NORM, average_policies, rescaled
from policies.policy_file import PolicyCard, load_policy, save_policy
from policies.selector import Selector, SelectorConfig
from run import main
from tests.support.paths import ROOT

CONFIG = SelectorConfig(features=("margin", "density"), batch_features=("gradient_distance",))
RUN = ROOT / "run.py"


def policy(folder: Path, weights: list[list[float]], config: SelectorConfig = CONFIG, **card) -> Path:
    selector = Selector(config)
    if weights:
        selector.weights.data = torch.tensor(weights)
    return save_policy(selector, PolicyCard(**card), folder)


def source(name: str, labels: int, fingerprint: str | None = None) -> dict:
    return {"name": name, "fingerprint": name if fingerprint is None else fingerprint, "labels": labels}


A = [[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]
B = [[0.0, 0.0], [0.0, 0.0], [10.0, 0.0]]


def test_every_policy_counts_alike_whatever_its_size(tmp_path):
    selector, _ = average_policies([policy(tmp_path / "a", A), policy(tmp_path / "b", B)])
    expected = torch.tensor([[0.6, 0.0], [0.0, 0.8], [1.0, 0.0]]) * EXPORT_NORM / 2**0.5
    torch.testing.assert_close(selector.weights.data, expected)
    larger = [[30.0, 0.0], [0.0, 40.0], [0.0, 0.0]]
    again, _ = average_policies([policy(tmp_path / "a", larger), policy(tmp_path / "b", B)])
    torch.testing.assert_close(again.weights, selector.weights)


def test_rescaling_keeps_the_direction():
    w = torch.tensor([[3.0, -4.0]])
    torch.testing.assert_close(rescaled(w, 1.0), w / 5)
    assert not rescaled(torch.zeros(2, 2)).any()


def test_card_names_its_parents_and_counts_each_label_once(tmp_path):
    pool, drawn = source("emoji", 602), source("synthetic-family", 5000, "")
    first = policy(tmp_path / "a", A, trained_on=[pool, drawn], labels_used=5602, episodes=10, seed=0)
    second = policy(
        tmp_path / "b", B, trained_on=[pool, drawn, source("watch", 916)], labels_used=6518, episodes=20, seed=1,
        algorithm="evolution", preset="mine",
    )  # fmt: skip
    _, card = average_policies([first, second])
    assert card.labels_used == 602 + 916 + 2 * 5000  # the same rows of emoji, but other pools of the family
    assert [(s["name"], s["labels"]) for s in card.trained_on] == [
        ("emoji", 602), ("synthetic-family", 10000), ("watch", 916),
    ]  # fmt: skip
    assert (card.episodes, card.seed, card.algorithm, card.preset) == (30, None, "average", "several")
    assert [(p["algorithm"], p["seed"], p["labels_used"]) for p in card.parents] == [
        ("reinforce", 0, 5602), ("evolution", 1, 6518),
    ]  # fmt: skip
    save_policy(Selector(CONFIG), card, tmp_path / "c")
    assert load_policy(tmp_path / "c")[1] == card


def test_policies_that_do_not_fit_together_are_refused(tmp_path):
    good = policy(tmp_path / "good", A)
    other = policy(tmp_path / "other", [], dataclasses.replace(CONFIG, features=("margin", "rarity")))
    order = policy(tmp_path / "order", [], dataclasses.replace(CONFIG, features=("density", "margin")))
    mlp = policy(tmp_path / "mlp", [], dataclasses.replace(CONFIG, mlp=(3,)))
    zero = policy(tmp_path / "zero", [[0.0, 0.0]] * 3)
    capped = policy(tmp_path / "capped", A, candidates=CandidateConfig(per_pick=7))
    for paths, words in (
        ([good], "at least 2"),
        ([good, other], "density, rarity"),
        ([good, order], "their order"),
        ([good, mlp], "not linear"),
        ([good, zero], "are all 0"),
        ([good, capped], "other candidates"),
        ([good, tmp_path / "nowhere"], "nowhere"),
    ):
        with pytest.raises(PolicyError, match=words):
            average_policies(paths)


def test_command(tmp_path, capsys):
    first, second = policy(tmp_path / "a", A), policy(tmp_path / "b", B)
    out = tmp_path / "out"
    command = [sys.executable, str(RUN), "average", "--out", str(out), "--policies"]
    done = subprocess.run([*command, f"{first},{second}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert load_policy(out)[0].weights.norm().item() == pytest.approx(EXPORT_NORM)
    assert main([*command[2:], str(first)]) == 2
    assert capsys.readouterr().err.startswith("error: An average needs")
