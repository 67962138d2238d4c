"""Names of ours, names of a module's, and words about mistakes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs.candidates import FEATURES
from envs.errors import ConfigError, DataError, RLMBAError, StrategyError
from envs.registry import Registry
from envs.rewards import TERMS
from learners.algorithms import ALGORITHMS
from policies.batch_features import BATCH_FEATURES
from policies.strategies import STRATEGIES


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that is none of this package's."""
    (tmp_path / "of_somebody.py").write_text("three = 3\nword = 'three'\n")
    (tmp_path / "misspelt.py").write_text("def f(:\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "of_somebody"
    for module in ("of_somebody", "misspelt", "broken"):
        sys.modules.pop(module, None)


@pytest.fixture
def registry() -> Registry[object]:
    entries: dict[str, object] = {"one": 1, "later": "of_somebody:three", "not": 1.5}
    return Registry("whole number", "int", lambda found: isinstance(found, int), entries, DataError)


def test_what_is_found(registry: Registry[object], own: str) -> None:
    assert registry.find("one") == 1
    assert registry.find("later") == registry.find(f"{own}:three") == 3
    registry["four"] = 4
    assert registry.find("four") == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("on", "Unknown whole number 'on'. Did you mean 'one'? Whole numbers: one, later, not; or module:name of your"),
        ("not", "The whole number 'not' is no int."),
        ("of_somebody:word", "The whole number 'of_somebody:word' is no int."),
        ("of_somebody:four", "'of_somebody:four' cannot be imported: module 'of_somebody' has no attribute 'four'"),
        ("of_nobody:four", "'of_nobody:four' cannot be imported: No module named 'of_nobody'"),
        ("misspelt:f", "'misspelt:f' cannot be imported: invalid syntax (misspelt.py, line 1)"),
        (":four", "':four' cannot be imported"),
        ("", "Unknown whole number ''."),
    ],
)
def test_mistakes_are_named(registry: Registry[object], own: str, name: str, words: str) -> None:
    with pytest.raises(DataError) as error:
        registry.find(name)
    assert words in str(error.value)


def test_what_a_module_raises_keeps_its_traceback(registry: Registry[object], own: str) -> None:
    with pytest.raises(ZeroDivisionError):
        registry.find("broken:f")


@pytest.mark.parametrize(
    ("registry", "wrong", "words", "error"),
    [
        (STRATEGIES, "bagde", "Unknown strategy 'bagde'. Did you mean 'badge'? Strategies: random, ", StrategyError),
        (TERMS, "hardthird", "Unknown reward term 'hardthird'. Did you mean 'hard_third'? Reward terms: ", ConfigError),
        (FEATURES, "margins", "Unknown candidate feature 'margins'. Did you mean 'margin'? Candidate ", ConfigError),
        (BATCH_FEATURES, "classshare", "Unknown batch feature 'classshare'. Did you mean 'class_share'?", ConfigError),
        (ALGORITHMS, "evolutio", "Unknown algorithm 'evolutio'. Did you mean 'evolution'? Algorithms: ", ConfigError),
    ],
    ids=lambda value: value.noun if isinstance(value, Registry) else None,
)
def test_every_registry_answers_alike(
    registry: Registry[object], wrong: str, words: str, error: type[RLMBAError], own: str
) -> None:
    with pytest.raises(error) as unknown:
        registry.find(wrong)
    assert str(unknown.value).startswith(words)
    with pytest.raises(error, match=f"The {registry.noun} '{own}:three' is no {registry.needed}"):
        registry.find(f"{own}:three")
