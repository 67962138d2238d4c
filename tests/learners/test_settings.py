"""Settings: read, merged, and mistakes named where they stand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from envs.errors import ConfigError
from envs.fields import flat
from envs.multimodal_al import EnvConfig
from envs.rewards import TERMS
from learners.algorithms.config import LearnerConfig
from learners.settings import TrainConfig, build, merge, parse_overrides, preset_names, read_preset, read_yaml, to_yaml
from learners.sweeps.config import SweepConfig


def test_build_from_a_nested_mapping() -> None:
    config = build(
        TrainConfig,
        {
            "datasets": ["emoji", "digits"],
            "protocol": {"rounds": 3},
            "policy": {"features": ["margin", "density"], "mlp": [8]},
            "learner": {"learning_rate": 1, "copies": 4},
        },
    )
    assert config.datasets == ("emoji", "digits")
    assert config.protocol.rounds == 3
    assert config.protocol.batch_size == TrainConfig().protocol.batch_size
    assert config.policy.features == ("margin", "density")
    assert config.policy.mlp == (8,)
    assert config.learner == dataclasses.replace(LearnerConfig(), learning_rate=1.0, copies=4)
    assert build(TrainConfig, {}) == TrainConfig()


def test_the_environment_of_a_run_takes_its_settings() -> None:
    config = build(
        TrainConfig,
        {"seed": 5, "starts": 7, "learner": {"copies": 3}, "policy": {"features": ["margin"]},
         "reward": {"weakest_modality": 0.5}, "candidates": {"per_pick": 9}, "model": {"steps": 2}},
    )  # fmt: skip
    env = config.env()
    assert isinstance(env, EnvConfig)
    assert (env.seed, env.starts, env.copies, env.features) == (5, 7, 3, ("margin",))
    assert (env.reward, env.candidates, env.model) == (config.reward, config.candidates, config.model)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"protocl": {}}, "Unknown setting 'protocl'. Did you mean 'protocol'?"),
        ({"protocol": {"round": 3}}, "Unknown setting 'protocol.round'. Did you mean 'rounds'?"),
        ({"learner": {"LearningRate": 3}}, "Unknown setting 'learner.LearningRate'. Did you mean 'learning_rate'?"),
        ({"learner": {"xyzzy": 3}}, "Unknown setting 'learner.xyzzy'. Valid here: advantage, "),
        ({7: 1}, "Unknown setting '7'."),
        ({"learner": 3}, "learner must be a mapping"),
        ({"learner": None}, "learner must be a mapping"),
    ],
)
def test_unknown_names_are_refused_by_their_full_path(given: dict, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(TrainConfig, given)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"protocol": {"rounds": "many"}}, "protocol.rounds is 'many'"),
        ({"protocol": {"rounds": 2.5}}, "protocol.rounds is 2.5"),
        ({"minutes": "long"}, "minutes is 'long'"),
        ({"learner": {"learning_rate": [1]}}, "learner.learning_rate is [1]"),
        ({"policy": {"linear": "perhaps"}}, "policy.linear is 'perhaps'"),
        ({"policy": {"mlp": [4, "x"]}}, "policy.mlp.1 is 'x'"),
        ({"datasets": "emoji"}, "datasets is 'emoji'"),
        ({"seed": None}, "seed is None"),
    ],
)
def test_values_of_the_wrong_type_are_named_with_their_path(given: dict, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(TrainConfig, given)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"protocol": {"rounds": 0}}, "protocol.rounds is 0"),
        ({"protocol": {"amcb_floor": 1.0}}, "protocol.amcb_floor is 1.0"),
        ({"protocol": {"amcb_temperature": 0}}, "protocol.amcb_temperature is 0"),
        ({"minutes": 0}, "minutes is 0"),
        ({"minutes": float("nan")}, "minutes is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"candidates": {"per_pick": 0}}, "candidates.per_pick is 0"),
        ({"learner": {"advantage": "groups"}}, "Did you mean 'group'"),
        ({"learner": {"copies": 1}}, "learner.copies is 1"),
        ({"learner": {"weight_average": 1.0}}, "learner.weight_average is 1.0"),
        ({"learner": {"groups": 5}}, "learner.groups is 5, which 2 environment runners"),
        ({"resources": {"num_env_runners": -1}}, "resources.num_env_runners is -1"),
        ({"policy": {"features": ["margins"]}}, "Did you mean 'margin'"),
        ({"reward": dict.fromkeys(TERMS, 0)}, "Every reward weight is 0"),
        ({"reward": {"relative_accuracy": float("nan")}}, "reward.relative_accuracy is nan"),
        ({"policy": {"mlp": [0]}}, "policy.mlp"),
        ({"learner": {"gradient_clip": -1}}, "learner.gradient_clip is -1"),
        ({"learner": {"advantage_clip": -1}}, "learner.advantage_clip is -1"),
        ({"model": {"weight_decay": -1}}, "model.weight_decay is -1"),
        ({"algorithm": "evolutio"}, "Did you mean 'evolution'"),
        ({"algorithm": "evolution", "policy": {"mlp": [8]}}, "policy.mlp is [8]"),
        ({"evolution": {"vary_protocol": True}}, "evolution.vary_protocol takes --algorithm evolution"),
        ({"evolution": {"oversample": 1}}, "evolution.oversample takes --algorithm evolution"),
        ({"evolution": {"generations": 0}}, "evolution.generations is 0"),
        ({"evolution": {"population": 3}}, "evolution.population is 3; it must be at least 4"),
        ({"evolution": {"starts": 0}}, "evolution.starts is 0"),
        ({"evolution": {"sigma0": 0}}, "evolution.sigma0 is 0"),
        ({"evolution": {"sigma0": float("inf")}}, "evolution.sigma0 is inf"),
    ],
)
def test_values_out_of_range_are_refused(given: dict, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(TrainConfig, given)
    assert words in str(error.value)


def test_evolution_needs_no_even_share_of_groups() -> None:
    config = build(TrainConfig, {"algorithm": "evolution", "learner": {"groups": 5}, "evolution": {"generations": 7}})
    assert config.iterations == 7
    assert TrainConfig().iterations == TrainConfig().learner.iterations


def test_overrides_become_a_nested_mapping() -> None:
    assert parse_overrides([]) == {}
    assert parse_overrides(
        ["learner.copies=8", "learner.groups=2", "datasets=[emoji, digits]", "minutes=0.5",
         "policy.initial=zero", "policy.linear=true"]
    ) == {
        "learner": {"copies": 8, "groups": 2},
        "datasets": ["emoji", "digits"],
        "minutes": 0.5,
        "policy": {"initial": "zero", "linear": True},
    }  # fmt: skip
    # YAML 1.1 takes this for text; building makes it the number it is meant to be.
    config = build(TrainConfig, parse_overrides(["learner.learning_rate=1e-3"]))
    assert config.learner.learning_rate == 0.001


@pytest.mark.parametrize("wrong", ["learner.copies", "=3", "learner.copies=[1", ""])
def test_unreadable_overrides_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_overrides(["minutes=1", wrong])
    assert repr(wrong) in str(error.value)


@pytest.mark.parametrize("name", preset_names())
def test_presets_build(name: str) -> None:
    config = build(TrainConfig, read_preset(name))
    assert config.preset == name
    config.env()


def test_the_paper_preset_is_the_paper() -> None:
    assert {"default", "paper"} <= set(preset_names())
    config = build(TrainConfig, read_preset("paper"))
    assert config.candidates.rule == "score"
    assert config.candidates.per_pick == 5  # kappa
    assert config.learner.advantage == "ema"
    assert not config.policy.linear
    assert config.policy.mlp
    assert config.policy.batch_features == ()
    assert 0 < config.reward.smoothing < 1
    rewarded = {name for name in TERMS if getattr(config.reward, name)}
    assert {"relative_accuracy", "contribution_balance"} <= rewarded
    assert rewarded <= {"relative_accuracy", "contribution_balance", "accuracy_gain"}  # nothing of ours
    assert build(TrainConfig, read_preset("default")) == TrainConfig()


def test_the_ablations_differ_from_the_paper_by_what_they_leave_out() -> None:
    paper, amcb, efda = (build(TrainConfig, read_preset(name)) for name in ("paper", "paper_amcb", "paper_efda"))
    assert amcb == dataclasses.replace(
        paper, preset="paper_amcb", candidates=dataclasses.replace(paper.candidates, efda=False)
    )
    reward = dataclasses.replace(paper.reward, contribution_balance=0.0)
    candidates = dataclasses.replace(paper.candidates, amcb=False)
    assert efda == dataclasses.replace(paper, preset="paper_efda", candidates=candidates, reward=reward)


def test_an_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'papers'.*Did you mean 'paper'"):
        read_preset("papers")


@pytest.mark.parametrize("name", preset_names())
def test_what_is_written_reads_back_equal(name: str, tmp_path: Path) -> None:
    config = build(
        TrainConfig,
        merge(read_preset(name), {"datasets": ["a,b", "päth/ü.npz", "synthetic:noise=0.3"], "seed": 12,
                                  "learner": {"learning_rate": 1e-5}}),
    )  # fmt: skip
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert build(TrainConfig, read_yaml(file)) == config


def test_merge_lays_one_over_the_other() -> None:
    below = {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}
    above = {"a": {"y": 5, "z": 6}, "b": [9], "d": 4}
    assert merge(below, above) == {"a": {"x": 1, "y": 5, "z": 6}, "b": [9], "c": 3, "d": 4}
    assert below == {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}
    assert merge({"a": {"x": 1}}, {"a": 2}) == {"a": 2}
    assert merge({"a": 2}, {"a": {"x": 1}}) == {"a": {"x": 1}}


def test_precedence_over_a_preset() -> None:
    settings = merge(read_preset("paper"), {"learner": {"copies": 4}})
    config = build(TrainConfig, merge(settings, parse_overrides(["learner.learning_rate=0.5"])))
    assert config.learner.copies == 4
    assert config.learner.learning_rate == 0.5
    assert config.learner.advantage == "ema"  # the preset's, still


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"a: [1", "is not valid YAML"), (b"- 1\n- 2", "must hold a mapping"), (b"just words", "must hold a mapping"),
     (b"\xff\xfe\xff", "Cannot read settings"), (None, "Cannot read settings")],
)  # fmt: skip
def test_unreadable_files_are_named(content: bytes | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        read_yaml(file)
    assert words in str(error.value)
    assert str(file) in str(error.value)


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing\n")
    assert read_yaml(file) == {}


def test_nested_settings_by_dotted_names() -> None:
    nested = {"a": {"x": 1, "y": {}}, "b": [{"c": 2}, 3], 4: None}
    assert flat(nested) == {"a.x": 1, "b": [{"c": 2}, 3], "4": None}
    assert flat(nested, lists=True) == {"a.x": 1, "b.0.c": 2, "b.1": 3, "4": None}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learner: {copies: 8}\nlearner: {groups: 4}", "'learner' stands twice, in line 1 and in line 2"),
        ("seed: 1\nprotocol:\n  rounds: 2\n  rounds: 3", "'rounds' stands twice, in line 3 and in line 4"),
        ("evolution: {starts: 1, starts: 2}", "'starts' stands twice"),
        ("seed: 010", "010 in line 1 is octal for some readers and decimal for others; write 10."),
        ("starts: 1\nseed: -0_7", "-0_7 in line 2"),
        ("seed: 1\n---\nseed: 2", "is not valid YAML"),
        ("seed: 0x_", "is not valid YAML"),
        ("seed: !!int foo", "is not valid YAML"),
        ("seed: !!timestamp foo", "is not valid YAML"),
        ("seed: !!python/name:os.system", "is not valid YAML"),
        ("? [a]\n: 1", "is not valid YAML"),
        ("a: " + "[" * 3000, "is not valid YAML"),
        ("[]", "must hold a mapping"),
        ("false", "must hold a mapping"),
        ("''", "must hold a mapping"),
    ],
)
def test_a_file_that_may_be_meant_otherwise_is_refused(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_yaml(file)
    assert str(error.value).startswith(str(file)) and words in str(error.value)
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("value", ["yes", "no", "on", "off", "1:30", "true", "0o17x", "2024-01-31", "2024-99-99"])
@pytest.mark.parametrize("name", ["seed", "minutes", "learner.groups", "protocol.amcb_floor", "evolution.sigma0"])
def test_a_word_is_no_number(name: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(": {".join(name.split(".")) + f": {value}" + "}" * name.count("."))
    for settings in (parse_overrides([f"{name}={value}"]), read_yaml(tmp_path / "mine.yaml")):
        with pytest.raises(ConfigError, match=name):
            build(TrainConfig, settings)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E3", 1e3), (".5", 0.5), ("-.5", -0.5), ("+3", 3), ("0", 0), ("00", 0), ("0.10", 0.1),
     ("1_000", 1000), ("0x10", 16), ("true", True), ("yes", "yes"), ("1:30", "1:30"), ("2024-01-31", "2024-01-31"),
     ("~", None), (".inf", float("inf")), ("'010'", "010"), ("a,b", "a,b"), ("e5", "e5"), ("1.e3", 1000.0)],
)  # fmt: skip
def test_values_are_read_in_one_way(text: str, value: object) -> None:
    read = parse_overrides([f"minutes={text}"])["minutes"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    "twice", [["seed=1", "seed=1"], ["learner={copies: 8}", "learner.copies=4"], ["a.b.c=1", "a.b=2"]]
)
def test_a_setting_given_twice_is_refused(twice: list[str]) -> None:
    with pytest.raises(ConfigError, match="set the same"):
        parse_overrides(twice)
    assert parse_overrides(["learner.copies=1", "learner.copies_=2"])  # a longer name is another


@pytest.mark.parametrize("empty", ["seed=", "seed= ", "datasets="])
def test_a_setting_without_a_value_is_refused(empty: str) -> None:
    with pytest.raises(ConfigError, match="has no value"):
        parse_overrides([empty])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"datasets": []}, "name at least one data set"),
        ({"datasets": ["emoji", "watch", "emoji"]}, "'emoji' is the same data set as 'emoji'"),
        ({"datasets": "emoji"}, "write ['emoji']"),
        ({"policy": {"mlp": "64,32"}}, "policy.mlp is '64,32'; it must be a list: write [64,32]"),
        ({"policy": {"mlp": 64}}, "write [64]"),
        ({"policy": {"features": "margin"}}, "write ['margin']"),
        ({"policy": {"mlp": [64, True]}}, "policy.mlp.1 is True"),
        ({"datasets": [True]}, "datasets.0 is True"),
        ({"preset": "nonsense"}, "Unknown preset 'nonsense'"),
        ({"preset": ""}, "Unknown preset ''"),
        ({"preset": None}, "Unknown preset None"),
        ({"preset": ["paper"]}, "Unknown preset ['paper']"),
    ],
)
def test_values_that_are_none_are_refused(given: dict, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(TrainConfig, given)
    assert words in str(error.value)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_applies_wherever_it_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"preset: {name}\nseed: 3\n")
    wanted = build(TrainConfig, merge(read_preset(name), {"seed": 3}))
    assert build(TrainConfig, read_yaml(tmp_path / "mine.yaml")) == wanted
    assert build(TrainConfig, parse_overrides([f"preset={name}", "seed=3"])) == wanted
    sweep = SweepConfig(space={"seed": {"choice": [3]}}, train={"preset": "default", "starts": 5})
    assert sweep.train_config({"preset": name, "seed": 3}) == dataclasses.replace(wanted, starts=5)
