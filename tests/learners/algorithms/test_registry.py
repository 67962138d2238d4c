"""Algorithms by name: those of the package, one of a stranger, and mistakes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from envs.errors import ConfigError, PolicyError
from learners.algorithms import ALGORITHMS, get_algorithm
from learners.algorithms.base import Trainer
from learners.algorithms.config import LearnerConfig
from learners.settings import TrainConfig, build, merge, parse_overrides
from learners.training import LEAST_ITERATIONS, opened, policy_card, train
from policies.policy_file import load_policy
from policies.start import initial_selector
from tests.support.training import DATASET, SMALL

# All that a stranger has to write.
OWN = """\
import torch
from learners.algorithms.base import Trainer

class Steady(Trainer):
    def step(self):
        with torch.no_grad():
            self.policy.weights += 1
        return {"aulc": 0.5, "episodes": 3}, {"play": 0.1}

class Never(Trainer):
    @classmethod
    def check(cls, config):
        from envs.errors import ConfigError
        raise ConfigError("Never trains nothing.")

nothing = 3
"""


def settings(**top) -> TrainConfig:
    given = {"datasets": [DATASET], "resources": {"num_env_runners": 0}}
    return build(TrainConfig, merge(merge(parse_overrides(SMALL), given), top))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that is none of this package's."""
    (tmp_path / "of_a_stranger.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "of_a_stranger"
    sys.modules.pop("of_a_stranger", None)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_name_leads_to_a_class_that_answers(name: str) -> None:
    config = settings(algorithm=name, resources={"num_env_runners": 2})
    trainer = config.trainer
    assert trainer is get_algorithm(name) and issubclass(trainer, Trainer)
    assert trainer.step is not Trainer.step
    assert config.until(7).iterations == 7 != config.iterations
    starts, episodes = trainer.together(config)
    assert starts >= 1 and episodes >= 2
    assert min(trainer.learning_bytes(config)) >= 0 and trainer.process_bytes > 1e8


def test_settings_alone_import_no_ray(without_ray: Callable[..., str]) -> None:
    assert without_ray("import learners.settings, learners.algorithms; print('imported')") == "imported\n"


def test_an_algorithm_of_a_stranger_trains_and_resumes(own: str, tmp_path: Path) -> None:
    config = settings(algorithm=f"{own}:Steady", learner={"iterations": 2})
    out = tmp_path / "run"
    initial = initial_selector(config.policy).weights
    train(config, out)
    selector, card = load_policy(out)
    torch.testing.assert_close(selector.weights, initial + 2)
    assert (card.algorithm, card.episodes) == ("of_a_stranger:Steady", 6)
    file = out / "config.yaml"
    file.write_text(file.read_text().replace("iterations: 2", "iterations: 3"))
    train(config, out, resume=True)
    torch.testing.assert_close(load_policy(out)[0].weights, initial + 3)


@pytest.mark.parametrize(("minutes", "played"), [(1e-9, LEAST_ITERATIONS), (0.25, 5), (60.0, 8)])
def test_minutes_are_those_of_training_and_leave_time_for_some_iterations(
    minutes: float, played: int, own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """An iteration takes 3 s here; opening the run takes an hour, which does not count."""
    now = [0.0]

    class Timed(get_algorithm(f"{own}:Steady")):
        def __init__(self, *arguments, **named) -> None:
            now[0] += 3600
            super().__init__(*arguments, **named)

        def step(self):
            now[0] += 3
            return super().step()

    monkeypatch.setattr("learners.training.time.monotonic", lambda: now[0])
    monkeypatch.setitem(ALGORITHMS, "timed", Timed)
    out = tmp_path / "run"
    train(settings(algorithm="timed", minutes=minutes, learner={"iterations": 8}), out)
    assert len((out / "history.jsonl").read_text().splitlines()) == played
    said = capsys.readouterr().out
    assert ("time is over" in said) == (minutes < 0.1)
    assert "start      the policy that ships" in said


def test_a_checkpoint_belongs_to_what_it_was_written_after(own: str, tmp_path: Path) -> None:
    """Policy and history come before the checkpoint: a run killed between them plays its last iteration again."""
    seen = []

    class Watching(get_algorithm(f"{own}:Steady")):
        def save(self, folder: str) -> None:
            run = tmp_path / "run"
            history = (run / "history.jsonl").read_text().splitlines()
            seen.append((load_policy(run)[1].episodes, len(history), len(list((run / "checkpoints").glob("0*")))))
            super().save(folder)

    ALGORITHMS["watching"] = Watching
    try:
        train(settings(algorithm="watching", learner={"iterations": 2}), tmp_path / "run")
    finally:
        del ALGORITHMS["watching"]
    assert seen == [(3, 1, 0), (6, 2, 1)]


def test_mistakes_are_named(own: str) -> None:
    for name, words in (
        ("evolutio", "Did you mean 'evolution'"),
        ("of_nobody:Steady", "cannot be imported: No module named 'of_nobody'"),
        (f"{own}:Stedy", "cannot be imported: module 'of_a_stranger' has no attribute 'Stedy'"),
        (":Steady", "cannot be imported"),
        (f"{own}:nothing", "no subclass of learners.algorithms.base.Trainer"),
        ("envs.simulation:Simulation", "no subclass of learners.algorithms.base.Trainer"),
        (f"{own}:Never", "Never trains nothing."),
    ):
        with pytest.raises(ConfigError) as error:
            settings(algorithm=name)
        assert words in str(error.value)


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = settings()
    trainer = Trainer(config, policy_card(config, opened(config)))
    with pytest.raises(PolicyError, match="empty"):
        trainer.restore(tmp_path / "empty")


def test_rllib_learns_by_the_defaults_of_the_settings() -> None:
    config = get_algorithm("reinforce").rllib.get_default_config()
    assert config.learner == LearnerConfig() == TrainConfig().learner
    assert (config.lr, config.grad_clip) == (LearnerConfig().learning_rate, LearnerConfig().gradient_clip)
    assert [get_algorithm(name).rllib.epochs for name in ("ppo", "appo")] == [4, 1]
