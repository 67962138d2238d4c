"""What the page of pitfalls rests on: the pools, the strategies that look at one modality, the figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.pitfall_tables import Figures, draw, tables
from benchmarks.pitfalls import PITFALLS, REWARDS, TRAINED_ON, family, margin_of, measure, parameters
from envs.models.frozen.trainer import FrozenConfig
from envs.simulation import ProtocolConfig, Simulation
from envs.source import evaluation_starts, evaluation_trainer
from envs.sources import draw_from_family, open_dataset
from envs.sources.synthetic_spec import parse_spec
from learners.settings import TrainConfig, build, parse_overrides
from policies.strategies import get_strategy

PROTOCOL = ProtocolConfig(initial_labels=10, batch_size=5, rounds=2)
PLAYERS = {
    name: get_strategy(strategy)
    for name, strategy in {
        "shipped": "badge",
        "default-0": "margin",
        "default-1": "bmmal",
        "balance-0": "entropy",
        "balance-1": "typiclust",
        "random": "random",
        "margin": "margin",
    }.items()
}
GROUPS = {"default": ["default-0", "default-1"], "balance": ["balance-0", "balance-1"]}


@pytest.mark.parametrize("pitfall", PITFALLS)
def test_pitfalls_are_pools_of_two_modalities_with_one_difficulty(pitfall: str) -> None:
    plain, spec = (parse_spec(parameters(p, {"strength": "1"})) for p in ("shared", pitfall))
    changed = [name for name in vars(spec) if getattr(spec, name) != getattr(plain, name)]
    assert spec.modalities == 2 and len(changed) == (pitfall != "shared")


@pytest.mark.parametrize("pitfall", TRAINED_ON)
def test_families_have_the_difficulty_of_their_pitfall(pitfall: str) -> None:
    pitfalls = parse_spec(parameters(pitfall, {"strength": "1"}))
    drawn = parse_spec(draw_from_family(family(pitfall), np.random.default_rng(3)).partition(":")[2])
    for name in ("corruption", "missing", "label_noise", "outliers", "imbalance", "fragments", "unique", "synergy"):
        assert getattr(drawn, name) == getattr(pitfalls, name), name


def test_twins_differ_in_one_weight_of_the_reward() -> None:
    default, balance = (
        build(TrainConfig, {"datasets": ["emoji"]} | parse_overrides(REWARDS[name])).reward
        for name in ("default", "balance")
    )
    changed = [name for name in vars(balance) if getattr(balance, name) != getattr(default, name)]
    assert changed == ["weakest_modality"] and balance.weakest_modality > 5 * default.weakest_modality


def test_margin_of_one_modality_looks_at_no_other() -> None:
    pool = open_dataset("synthetic:samples=400,classes=3,modalities=2,dim=6,missing=0.1:0.4,seed=2")
    simulation = Simulation(evaluation_trainer(pool, FrozenConfig()), PROTOCOL)
    round_ = simulation.reset(evaluation_starts(pool, PROTOCOL, [1, 2]))
    outputs = round_.outputs
    assert outputs.present is not None
    for m in (0, 1):
        picks = margin_of(m)(round_, 5)
        for e in range(2):
            alpha = torch.nn.functional.softplus(outputs.modality_logits[e, m]) + 1
            best = (alpha / alpha.sum(0)).sort(0).values
            gap = (best[-1] - best[-2]).tolist()
            may = (round_.available[e] & outputs.present[e, m]).nonzero()[:, 0].tolist()
            assert picks[e].tolist() == sorted(may, key=lambda i: gap[i])[:5]


def test_figures_are_ordered_by_what_random_makes_of_the_modalities(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    found = {p: measure(p, PLAYERS, 1, 2, PROTOCOL) for p in ("weak", "all synergy")}
    weak = found["weak"]
    assert weak["random"].gap.mean() > 0.1  # strength 1.3 against 0.5
    for figures in weak.values():
        np.testing.assert_allclose(figures.shapley.sum(1) + 1 / 8, figures.accuracy, atol=1e-6)
    both = Figures.mean([weak["default-0"], weak["default-1"]])
    text = tables(found, GROUPS)
    assert f"{100 * both.heads[:, 0].mean():.1f} / {100 * both.heads[:, 1].mean():.1f}" in text
    assert "| random |" in text and "default-0" not in text
    each = [100 * (weak[f"balance-{i}"].gap - weak[f"default-{i}"].gap).mean() for i in (0, 1)]
    assert f"({each[0]:+.1f}, {each[1]:+.1f})" in text
    share = next(line for line in text.split("Shapley")[1].splitlines() if line.startswith("| random"))
    assert share.endswith("| – |")  # nothing above chance is nothing to share
    draw(found, GROUPS, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
