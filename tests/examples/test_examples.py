"""The examples run, and what they add works where a stranger adds it."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from envs.candidates import FEATURES
from envs.errors import StrategyError
from envs.rewards import RewardConfig
from envs.simulation import ProtocolConfig
from evaluation.comparison import CompareConfig, compare
from examples import algorithm, batch_feature, feature, reward_term, strategy, task_model
from labelling.explanations import in_words
from learners.settings import TrainConfig, build, merge, parse_overrides, to_yaml
from learners.training import train
from policies.batch_features import BatchAware
from policies.policy_file import load_policy
from policies.selector import Selector, SelectorConfig
from policies.start import initial_selector
from tests.support.observations import random_observation
from tests.support.paths import ROOT
from tests.support.training import DATASET, RUN, SMALL

pytestmark = pytest.mark.usefixtures("one_ray")

EXAMPLES = sorted(file.stem for file in (ROOT / "examples").glob("[!_]*.py"))


def shown(name: str, capsys: pytest.CaptureFixture) -> str:
    import_module(f"examples.{name}").main()
    return capsys.readouterr().out


def numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"[+-]?\d+\.\d+", line)]


def test_the_strategy_is_compared(capsys: pytest.CaptureFixture) -> None:
    *_, own, random, badge = shown("strategy", capsys).splitlines()
    assert own.startswith("examples.strategy:dense_doubt ")
    curves = [numbers(line) for line in (own, random, badge)]
    assert [len(curve) for curve in curves] == [6, 6, 6]
    assert len({curve[0] for curve in curves}) == 1  # all begin alike
    assert sum(curves[0]) > sum(curves[1])


def test_the_reward_term_counts_and_trains(capsys: pytest.CaptureFixture) -> None:
    said = shown("reward_term", capsys)
    changes = [numbers(line)[-1] for line in said.splitlines() if line.startswith("round")]
    assert len(changes) == 10 and len(set(changes)) > 5 and min(changes) < 0
    assert "learned: {" in said


def test_the_feature_gets_a_weight(capsys: pytest.CaptureFixture) -> None:
    weights = {line.split()[0]: float(line.split()[1]) for line in shown("feature", capsys).splitlines()[-8:]}
    assert abs(weights[feature.NAME]) > 0.01 and abs(weights[f"{feature.NAME}*progress"]) > 0.01


def test_the_batch_feature_moves_picks_apart(capsys: pytest.CaptureFixture) -> None:
    apart = [numbers(line)[-1] for line in shown("batch_feature", capsys).splitlines()]
    assert len(apart) == 3 and apart[0] < apart[1] < apart[2]


def test_a_batch_feature_is_replayed_as_it_was_seen() -> None:
    observation = random_observation(7)
    aware = BatchAware(observation, (batch_feature.NAME, "batch_distance"))
    picks = torch.tensor([[0, 2, 4]] * len(observation["valid"]))
    replayed = aware.replay(picks)
    for j in range(3):
        torch.testing.assert_close(replayed[:, j], aware.current())
        aware.add(picks[:, j])


def test_the_task_model_keeps_the_contract_and_learns(capsys: pytest.CaptureFixture) -> None:
    lines = shown("task_model", capsys).splitlines()
    own, ours = (numbers(line) for line in lines)
    assert lines[0].startswith("CentroidConfig") and len(own) == len(ours) == 12
    assert own[0] + 5 < own[10]


def test_the_algorithm_keeps_what_earned_more(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert "iteration 6/6  48 episodes" in shown("algorithm", capsys)
    given = {"algorithm": "examples.algorithm:OnePlusOne", "datasets": [DATASET], "resources": {"num_env_runners": 0}}
    config = build(TrainConfig, merge(parse_overrides(SMALL), given))
    train(config, tmp_path / "whole")
    part = tmp_path / "part"
    train(config.until(2), part)
    part.joinpath("config.yaml").write_text(to_yaml(config))
    train(config, part, resume=True)
    weights = [load_policy(folder)[0].weights for folder in (tmp_path / "whole", part)]
    torch.testing.assert_close(*weights)  # an interruption changes nothing
    assert not torch.equal(weights[0], initial_selector(config.policy).weights)


def test_every_example_is_run_and_named_in_the_readme() -> None:
    modules = {
        m.__name__.rpartition(".")[2] for m in (algorithm, batch_feature, feature, reward_term, strategy, task_model)
    }
    assert set(EXAMPLES) == modules
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in EXAMPLES if f"examples/{name}.py" not in readme] == []


def test_people_read_the_words_of_a_feature_that_is_not_ours() -> None:
    names = (feature.NAME, "margin")
    selector = Selector(SelectorConfig(features=names, batch_features=(batch_feature.NAME,), initial="zero"))
    selector.weights.data[0, 0] = 1.0
    observation = random_observation(7)
    one = {name: values[:1] for name, values in observation.items()}
    one["features"] = one["features"][:, :, :2]
    picks = selector.select(one, 2)
    assert set(in_words(selector, one, picks)) <= {f"{words} (100%)" for words in FEATURES.find(feature.NAME).words}


@pytest.mark.slow
def test_a_comparison_takes_a_task_model(tmp_path: Path) -> None:
    protocol = ProtocolConfig(initial_labels=6, batch_size=3, rounds=3)
    model = task_model.CentroidConfig(temperature=3.0)
    config = CompareConfig((DATASET,), seeds=2, strategies=("random", "bald"), protocol=protocol, model=model)
    compare(config, tmp_path)
    assert '"temperature": 3.0' in (tmp_path / "summary.json").read_text()


STRANGER = """\
from envs.candidates import Feature

def first(round_, batch_size):
    return round_.available.int().topk(batch_size, dim=1).indices

def accuracy(outcome):
    return outcome.after.accuracy

doubt = Feature("doubt", lambda view: view.entropy, words=("unsure", "sure"))
"""


@pytest.mark.slow
def test_workers_find_what_lies_in_the_current_folder(tmp_path: Path) -> None:
    """Everything by `module:name`, from a folder that is on nobody's path."""
    (tmp_path / "of_a_stranger.py").write_text(STRANGER)

    def run(*arguments: str) -> None:
        settings = [part for setting in SMALL[:4] for part in ("--set", setting)]
        command = [sys.executable, str(RUN), *arguments, "--dataset", DATASET, *settings]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr

    own = ["policy.features=[margin,of_a_stranger:doubt]", "reward.extra.of_a_stranger:accuracy=0.5"]
    own += [
        "reward.baselines=[of_a_stranger:first]",
        "learner.iterations=1",
        "learner.groups=2",
        "learner.copies=2",
        "starts=4",
    ]
    run("train", "--out", "run", "--num-env-runners", "1", *(part for setting in own for part in ("--set", setting)))
    run("compare", "--out", "compared", "--policy", "run", "--strategies", "of_a_stranger:first,random", "--seeds", "2")
    assert "of_a_stranger:first" in (tmp_path / "compared" / "table.md").read_text()


def test_mistakes_are_named() -> None:
    with pytest.raises(StrategyError, match=r"'examples\.strategy:doubt' cannot be imported: .* no attribute 'doubt'"):
        CompareConfig(("emoji",), strategies=("examples.strategy:doubt",))
    with pytest.raises(StrategyError, match=r"'examples\.strategies:doubt' cannot be imported: No module named"):
        CompareConfig(("emoji",), strategies=("examples.strategies:doubt",))
    assert RewardConfig(extra={reward_term.NAME: 0.5}).weight(reward_term.NAME) == 0.5
