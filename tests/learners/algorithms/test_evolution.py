"""Evolution strategies: fitness by hand, one population played as if each policy were alone, and whole runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import ConfigError, PolicyError
from envs.models.frozen.trainer import FrozenConfig
from envs.pools.partition import partition
from envs.rewards import RewardConfig
from envs.simulation import ProtocolConfig, Simulation
from envs.source import open_source, training_starts, training_trainer
from learners.algorithms import evolution, population
from learners.algorithms.evolution import EvolutionTrainer, Search
from learners.algorithms.population import Arena, draw_protocol, play_population, population_fitness
from learners.settings import TrainConfig
from learners.training import train
from policies.averaging import EXPORT_NORM
from policies.policy_file import PolicyCard, load_policy
from policies.selector import Selector, SelectorConfig
from policies.start import initial_selector
from policies.strategies.learned import Learned
from tests.support.evolution import DATASET, FAMILY, SMALL, settings
from tests.support.training import command


def history(out: Path) -> list[dict]:
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_fitness_by_hand():
    wide = np.array([[1.0, 3.0], [5.0, 11.0]])  # centred: -1 1, -3 3; standard deviation sqrt(5)
    narrow = np.array([[0.50, 0.52]])  # centred: -.01 .01; standard deviation .01
    expected = (2 / np.sqrt(5) + 1) / 2
    np.testing.assert_allclose(population_fitness([wide, narrow]), [-expected, expected], rtol=1e-5)


@given(
    st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-10, 10)
)  # fmt: skip
def test_fitness_knows_neither_the_level_of_a_start_nor_the_scale_of_a_source(seed, scale, level):
    rng = np.random.default_rng(seed)
    first, second = rng.random((3, 5)), rng.random((2, 5))
    fitness = population_fitness([first, second])
    moved = scale * (first + level * rng.random((3, 1)))
    np.testing.assert_allclose(population_fitness([moved, second]), fitness, atol=1e-4)
    assert abs(fitness.sum()) < 1e-9
    assert not population_fitness([np.full((2, 4), level)]).any()


def test_a_population_plays_as_each_of_its_policies_alone(missing_pool):
    protocol = ProtocolConfig(initial_labels=8, batch_size=4, rounds=3)
    policy = SelectorConfig()
    reward = RewardConfig(relative_accuracy=1.0, soft_accuracy=0.5, weakest_modality=0.3, hard_third=0.2, smoothing=0.5)
    model = FrozenConfig(hidden=8, steps=10)
    arena = Arena(protocol, population.CandidateConfig(per_pick=6), reward, policy)
    trainer = training_trainer(missing_pool, model)
    starts = training_starts(missing_pool, protocol, [1, 2, 3, 4])
    shape = (3, *Selector(policy).weights.shape)
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    together = play_population(trainer, starts, arena, weights)
    assert {v.shape for v in together.values()} == {(4, 3)}
    assert np.ptp(together["accuracy"], axis=1).min() > 0
    alike = []
    for i in range(3):
        selector = Selector(policy)
        selector.weights.data = torch.from_numpy(weights[i])
        simulation = Simulation(training_trainer(missing_pool, model), protocol)
        round_ = simulation.reset(starts)
        accuracies, returns = [], []
        for _ in range(protocol.rounds):
            round_ = simulation.label(Learned(selector, arena.candidates)(round_, 4))
            m = simulation.measure()
            accuracies.append(m.accuracy)
            returns.append(
                m.accuracy + 0.5 * m.soft_accuracy + 0.3 * m.modality_accuracy.amin(1) + 0.2 * m.hard_accuracy
            )
        for name, alone, atol in (("accuracy", accuracies, 1e-6), ("return", returns, 1e-5)):
            alike.append(np.isclose(together[name][:, i], torch.stack(alone).mean(0), rtol=0, atol=atol))
            assert np.abs(together[name][:, i] - torch.stack(alone).mean(0).numpy()).mean() < 0.1
    # A processor may round a product of another shape otherwise, and a pick that differs changes what follows it.
    assert np.mean(alike) > 1 / 3


def planted(trainer, starts, arena, weights):
    """Instead of episodes: a batch is worth the mean disagreement of its picks, over what the start is worth."""
    returns = []
    column = arena.policy.features.index("disagreement")
    for start in starts:
        rng = torch.Generator().manual_seed(start.seed)
        observation = {
            "features": 2 * torch.rand(1, 40, len(arena.policy.features), generator=rng) - 1,
            "gradient": torch.randn(1, 40, 64, generator=rng),
            "hidden": torch.randn(1, 40, 32, generator=rng),
            "fisher": torch.randn(1, 40, 64, generator=rng),
            "input": torch.randn(1, 40, 64, generator=rng),
            "input_distance": torch.rand(1, 40, generator=rng),
            "uncertainty": torch.rand(1, 40, generator=rng),
            "labelled_distance": torch.rand(1, 40, generator=rng),
            "predicted": torch.zeros(1, 40),
            "valid": torch.ones(1, 40),
            "state": torch.rand(1, 11, generator=rng),
        }
        many = {k: v.expand(len(weights), *v.shape[1:]) for k, v in observation.items()}
        selector = Selector(arena.policy).with_row_weights(torch.from_numpy(weights))
        picks = selector.select(many, 5)
        worth = observation["features"][0, :, column][picks].mean(1) + 10 * torch.rand((), generator=rng)
        returns.append(worth.double().numpy())
    names = ("return", "accuracy", "soft_accuracy", "hard_accuracy", "weakest_modality")
    return dict.fromkeys(names, np.stack(returns))


def card_of(config: TrainConfig) -> PolicyCard:
    return PolicyCard(trained_on=[{"name": name, "labels": 0} for name in config.datasets])


def test_evolution_finds_the_feature_that_matters(monkeypatch):
    monkeypatch.setattr(evolution, "play_population", planted)
    config = settings((DATASET,), evolution={"population": 16}, starts=64)
    trainer = EvolutionTrainer(config, card_of(config))
    gains = [trainer.step()[0]["aulc_minus/initial"] for _ in range(40)]
    assert gains[0] == 0  # the first mean is the initial policy
    assert np.mean(gains[-5:]) > 0.5  # of at most about 0.8; a policy that looks elsewhere has 0
    weights = trainer.selector().named_weights()
    assert max(weights, key=lambda name: abs(weights[name])).startswith("disagreement")
    assert trainer.selector().weights.norm().item() == pytest.approx(EXPORT_NORM)


def test_a_resumed_search_goes_on_from_where_it_began_whatever_ships_now(tmp_path, monkeypatch):
    monkeypatch.setattr(evolution, "play_population", planted)
    config = settings((DATASET,), evolution={"population": 4})
    first = EvolutionTrainer(config, card_of(config))
    first.step()
    first.save(str(tmp_path))
    badge = SelectorConfig(initial="badge")
    monkeypatch.setattr(evolution, "initial_selector", lambda _: initial_selector(badge))
    second = EvolutionTrainer(config, card_of(config))
    second.restore(tmp_path)
    assert first.step()[0] == second.step()[0]
    assert torch.equal(first.selector().weights, second.selector().weights)


def test_search_depends_on_its_seed_and_on_what_it_was_told_alone():
    def search(seed: int, disturb: bool) -> np.ndarray:
        found = Search(np.zeros(6), 0.5, 8, seed)
        for _ in range(5):
            asked = found.ask()
            if disturb:
                np.random.default_rng().random()
                np.random.seed(1)
            found.tell(-np.square(asked - 1).sum(1))
        return found.mean

    np.testing.assert_array_equal(search(0, False), search(0, True))
    assert not np.array_equal(search(0, False), search(1, False))
    assert np.abs(search(0, False) - 1).mean() < 1  # nearer to the optimum than where it began


@given(st.integers(0, 2**32 - 1), st.integers(60, 3000))
def test_varied_protocols_fit_the_pool(seed, rows):
    base = ProtocolConfig(initial_labels=5, batch_size=2, rounds=4)
    drawn = draw_protocol(np.random.default_rng(seed), base, rows)
    assert drawn.budget <= rows
    assert drawn == base or (
        10 <= drawn.initial_labels <= 400 and 4 <= drawn.batch_size <= 100 and 4 <= drawn.rounds <= 10
    )


def test_varied_protocols_vary():
    rng = np.random.default_rng(0)
    drawn = [draw_protocol(rng, ProtocolConfig(), 500) for _ in range(50)]
    for name in ("initial_labels", "batch_size", "rounds"):
        assert len({getattr(p, name) for p in drawn}) > 6


def test_a_family_gives_pools_that_can_supply_the_budget():
    protocol = ProtocolConfig(initial_labels=100, batch_size=30, rounds=12)  # 460 of 225 to 675 rows
    pools = [open_source("synthetic-family", protocol, np.random.default_rng(seed)) for seed in range(3)]
    assert len({pool.fingerprint for pool in pools}) == 3
    with pytest.raises(ConfigError, match=r"budget of 460 labels.*protocol\.rounds"):
        open_source("synthetic-family:samples=1000", protocol, np.random.default_rng(0))


WIDE = {"vary_protocol": True, "oversample": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("evolution") / "run"
    train(settings(evolution=WIDE), out)
    return out


def test_run_folder_and_card(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"config.yaml", "policy", "checkpoints", "tensorboard", "learning_curve.png", "history.jsonl"} <= names
    assert not list(trained.rglob("*.pkl"))
    rows = history(trained)
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    assert rows[0]["aulc_minus/initial"] == 0
    assert {f"source_aulc/{name}" for name in (FAMILY, "synthetic", "synthetic, oversampled 1")} <= rows[0].keys()
    selector, card = load_policy(trained)
    assert not torch.equal(selector.weights, initial_selector(selector.config).weights)
    assert card.algorithm == "evolution" and card.seed == 0
    assert card.episodes == 3 * 3 * 3 * (4 + 2)  # generations, grounds, starts, population with mean and initial
    pool, drawn = card.trained_on
    assert pool["labels"] == len(partition(open_source(DATASET, ProtocolConfig(6, 3, 2), None)).policy)
    assert drawn["labels"] == pytest.approx(3 * 0.375 * 400, abs=30)  # three pools, of each the policy half
    assert card.labels_used == pool["labels"] + drawn["labels"]


def test_tensorboard_groups(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    wanted = {"reward", "accuracy", "aulc_minus", "source_aulc", "evolution", "policy_weight", "time", "training"}
    assert wanted <= {tag.partition("/")[0] for tag in tags}
    assert [event.step for event in events.Scalars("accuracy/aulc")] == [1, 2, 3]


def train_command(out: Path, *extra: str) -> list[str]:
    wide = [f"evolution.{name}={str(value).lower()}" for name, value in WIDE.items()]
    sets = [part for setting in [*SMALL, *wide] for part in ("--set", setting)]
    names = f"{DATASET},{FAMILY}"
    return command("train", "--algorithm", "evolution", "--dataset", names, "--out", out, *sets, *extra)


def test_same_seed_same_weights_in_two_processes(trained, tmp_path):
    done = subprocess.run(
        train_command(tmp_path / "two", "--num-env-runners", "2"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert history(tmp_path / "two") == history(trained)
    assert torch.equal(load_policy(tmp_path / "two")[0].weights, load_policy(trained)[0].weights)


def test_resumed_equals_uninterrupted(tmp_path):
    out = tmp_path / "killed"
    arguments = train_command(out, "--num-env-runners", "0", "--set", "evolution.generations=100000")
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + 120
    while not (out / "checkpoints" / "000004").is_dir():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = max(int(p.name) for p in (out / "checkpoints").iterdir() if p.name.isdigit())
    config = out / "config.yaml"
    config.write_text(config.read_text().replace("100000", str(kept + 2)))
    train(settings(), out, resume=True)
    whole = tmp_path / "whole"
    train(settings(evolution=WIDE | {"generations": kept + 2}), whole)
    assert history(out) == history(whole)
    (resumed, resumed_card), (uninterrupted, card) = load_policy(out), load_policy(whole)
    assert torch.equal(resumed.weights, uninterrupted.weights)
    assert replace(resumed_card, training_seconds=card.training_seconds) == card
    assert resumed_card.training_seconds > 0


def test_damaged_and_foreign_checkpoints_are_named(trained, tmp_path):
    def copy(name: str, old: str, new: str) -> Path:
        shutil.copytree(trained, tmp_path / name)
        config = tmp_path / name / "config.yaml"
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new).replace("generations: 3", "generations: 4"))
        return tmp_path / name

    damaged = copy("damaged", "seed: 0", "seed: 0")
    (damaged / "checkpoints" / "000003" / "evolution.npz").write_bytes(b"nothing")
    with pytest.raises(PolicyError, match=r"000003 cannot be read \(.*\)\. Delete that folder"):
        train(settings(), damaged, resume=True)
    shutil.rmtree(damaged / "checkpoints" / "000003")
    train(settings(), damaged, resume=True)
    assert [row["iteration"] for row in history(damaged)] == [1, 2, 3, 4]
    for name, old, new in (("seed", "seed: 0", "seed: 1"), ("size", "population: 4", "population: 5")):
        with pytest.raises(PolicyError, match="belongs to other settings"):
            train(settings(), copy(name, old, new), resume=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"datasets": ["synthetic-family:clases=3"]}, "Did you mean 'classes'"),
        ({"datasets": ["synthetic-family:noise=0.9"]}, "label_noise is 0.9"),
        ({"datasets": [DATASET], "protocol": {"rounds": 90}}, "The budget of 276 labels"),
        ({"datasets": [DATASET, "emojo"]}, "Did you mean 'emoji'"),
    ],
)
def test_bad_sources_are_refused_before_anything_begins(changes, words, tmp_path):
    with pytest.raises(Exception, match=words):
        train(settings(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()
