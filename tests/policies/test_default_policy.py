"""Which policy a comparison takes when none is named, what it says about it, and what it calls the data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from envs.errors import ConfigError, PolicyError
from envs.sources import open_dataset
from evaluation.comparison import CompareConfig, _open, compare
from evaluation.provenance import origin_notes
from policies.policy_file import PolicyCard, save_policy
from policies.selector import SelectorConfig
from policies.start import initial_selector
from run import main

DATASET = "synthetic:samples=400,classes=4,modalities=2,dim=8,seed=1"


@pytest.fixture
def policies(tmp_path: Path) -> tuple[str, str]:
    """Two policies that differ."""
    chosen = (tmp_path / "one", tmp_path / "two")
    for folder, initial in zip(chosen, ("hand_tuned", "badge"), strict=True):
        save_policy(initial_selector(SelectorConfig(features=("margin",), initial=initial)), PolicyCard(), folder)
    return str(chosen[0]), str(chosen[1])


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[CompareConfig]:
    """The configurations that commands would compare; nothing is played."""
    seen: list[CompareConfig] = []

    def stop(chosen: CompareConfig, _: str) -> None:
        seen.append(chosen)
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluation.comparison.compare", stop)
    return seen


def test_without_a_policy_the_one_of_the_package_is_taken(
    compared: list, policies: tuple, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path
) -> None:
    def run(*more: str) -> list[str]:
        assert main(["compare", "--dataset", DATASET, "--out", str(tmp_path / "out"), *more]) == 130
        return [name for name, _ in compared[-1].policies]

    monkeypatch.setattr("policies.policy_file.PRETRAINED", Path(policies[0]))
    assert run() == ["learned"]
    assert compared[-1].policies == (("learned", policies[0]),)
    assert run("--policy", "none") == []
    assert run("--policy", policies[1]) == ["learned", "pretrained"]
    assert compared[-1].policies[1] == ("pretrained", policies[0])
    assert run("--policy", policies[1], "--without-pretrained") == ["learned"]
    assert run("--policy", policies[0]) == ["learned"]  # that is the one
    assert run("--policy", policies[1], "--policy", policies[0]) == ["learned", "one"]
    assert run("--policy", str(tmp_path / "{dataset}")) == ["learned", "pretrained"]
    (tmp_path / "settings.yaml").write_text(f"policies: [[mine, {policies[1]}]]")
    assert run("--config", str(tmp_path / "settings.yaml")) == ["mine"]
    for arguments, says in (
        (("none", "x"), "'none' stands for no policy"),
        ((), "--policy none compares strategies"),
        ((policies[1],), "--without-pretrained leaves it out"),
    ):
        monkeypatch.setattr("policies.policy_file.PRETRAINED", tmp_path / "nothing")
        more = [part for path in arguments for part in ("--policy", path)]
        assert main(["compare", "--dataset", DATASET, "--out", str(tmp_path / "out"), *more]) == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("error: ") and says in message


def test_no_other_policy_goes_by_the_name_of_the_one_that_ships(policies: tuple, tmp_path: Path) -> None:
    chosen = CompareConfig((DATASET,), policies=(("pretrained", policies[0]),))
    with pytest.raises(
        ConfigError, match=r"'pretrained' is what the policy that ships is called, and .*one is another"
    ):
        compare(chosen, tmp_path / "out")


def test_what_training_started_from_is_no_stranger_either() -> None:
    pool = open_dataset(DATASET)
    seen = [{"name": "synthetic", "fingerprint": pool.fingerprint}]
    card = PolicyCard(trained_on=[{"name": "emoji", "fingerprint": "other"}], pretrained_on=seen)
    (note,) = origin_notes(pool, {"learned": card})
    assert note.startswith("Policy 'learned' was trained on emoji, from a policy that had been trained on 'synthetic'")


def test_a_source_of_an_average_that_is_compared_on_is_named() -> None:
    """The policy of the package may have seen the other half of the data set in question."""
    pool = open_dataset(DATASET)
    sources = [{"name": n, "fingerprint": ""} for n in ("synthetic-family:noise=0.2", "synthetic-family:noise=0.2")]
    seen = PolicyCard(trained_on=[*sources, {"name": "synthetic", "fingerprint": pool.fingerprint}])
    assert "rows that its training never saw: the evaluation half" in origin_notes(pool, {"learned": seen})[0]
    unseen = origin_notes(pool, {"learned": PolicyCard(trained_on=sources)})[0]
    assert unseen == "Policy 'learned' was trained on synthetic-family:noise=0.2, not on 'synthetic'."


def test_titles_are_what_tables_and_policies_go_by(tmp_path: Path) -> None:
    pool = _open(CompareConfig((DATASET,), titles=("mine",)))[DATASET]
    assert (pool.name, pool.fingerprint) == ("mine", open_dataset(DATASET).fingerprint)
    with pytest.raises(PolicyError, match="nowhere/mine"):
        compare(
            CompareConfig((DATASET,), titles=("mine",), policies=(("learned", "nowhere/{dataset}"),)), tmp_path / "out"
        )
    with pytest.raises(ConfigError, match="2 names for 1 data sets"):
        CompareConfig((DATASET,), titles=("mine", "yours"))
