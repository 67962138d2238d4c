"""Fields of settings: every declared bound holds at and beyond its edges, and messages name the field in full."""

from __future__ import annotations

import importlib
import math
import pkgutil
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any

import pytest
from annotated_types import Ge, Gt, Le, Lt

import envs
import evaluation
import labelling
import learners
import policies
from envs.errors import ConfigError
from envs.fields import Finite, Help, OneOf, Section, declarations, refuse
from envs.simulation import ProtocolConfig
from learners.settings import build

for package in (envs, policies, learners, evaluation, labelling):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if module.name != "envs.sources.build_bundled":  # wants pillow
            importlib.import_module(module.name)

SECTIONS = [section for section in Section.__subclasses__() if not section.__module__.endswith("test_fields")]


@dataclass(frozen=True)
class Example(Section, prefix="example."):
    """A field of every kind."""

    count: Annotated[int, Ge(1), Help("how many")] = 1
    passes: Annotated[int, Ge(1)] | None = None
    share: Annotated[float, Ge(0), Lt(1)] = 0.5
    validation: Annotated[float, Ge(0), Le(0.5)] = 0.5
    clip: Annotated[float, Gt(0), Lt(1)] = 0.5
    rate: Annotated[float, Gt(0)] = 1.0
    sigma: Annotated[float, Gt(0), Finite()] = 1.0
    decay: Annotated[float, Ge(0)] = 0.0
    weight: Annotated[float, Finite()] = 0.0
    plain: float = 0.0
    rule: Annotated[str, OneOf(("random", "score"))] = "random"
    name: str = ""
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()


def cases() -> list[Any]:
    """A section, one of its fields, a value at an edge or beyond it, and whether the field may hold it."""
    found = []
    for section in SECTIONS:
        for name, declaration in declarations(section).items():
            number = declaration.kind in (int, float)
            step = 1 if declaration.kind is int else 1e-9
            tried: list[tuple[Any, bool]] = [(math.nan, False), (True, False), ("1", False)] if number else []
            tried += [(2.5, False)] if declaration.kind is int else []
            for mark in declaration.marks:
                match mark:
                    case Ge(bound):
                        tried += [(declaration.kind(bound), True), (bound - step, False)]
                    case Gt(bound):
                        tried += [(declaration.kind(bound + step), True), (bound, False), (bound - step, False)]
                    case Le(bound):
                        tried += [(declaration.kind(bound), True), (bound + step, False)]
                    case Lt(bound):
                        tried += [(declaration.kind(bound - step), True), (bound, False), (bound + step, False)]
                    case Finite():
                        tried += [(math.inf, False), (-math.inf, False)]
                    case OneOf(names):
                        tried += [*((name, True) for name in names), ("xyzzy", False), (None, False)]
            found += [pytest.param(section, name, *case, id=f"{section.__name__}.{name}={case[0]}") for case in tried]
    return found


@pytest.mark.parametrize(("section", "name", "value", "good"), cases())
def test_every_declared_limit_is_enforced(section: type[Section], name: str, value: Any, good: bool) -> None:
    if good:
        refuse(section, name, value)
        return
    with pytest.raises(ConfigError) as error:
        refuse(section, name, value)
    assert str(error.value).startswith(f"{section.prefix}{name} is ")
    default = next(field for field in fields(section) if field.name == name).default  # type: ignore[arg-type]
    if all(field.default is not MISSING or field.default_factory is not MISSING for field in fields(section)):  # type: ignore[arg-type]
        with pytest.raises(ConfigError) as made:
            section(**{name: value})
        assert str(made.value) == str(error.value)
    refuse(section, name, default)


def test_every_number_of_the_settings_has_a_limit() -> None:
    assert {"ProtocolConfig", "FrozenConfig", "CandidateConfig", "RewardConfig", "EnvConfig", "SyntheticSpec"} <= {
        section.__name__ for section in SECTIONS
    }
    for section in SECTIONS:
        for name, declaration in declarations(section).items():
            assert declaration.kind not in (int, float) or declaration.marks, f"{section.__name__}.{name}"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("count", 0, "example.count is 0; it must be at least 1."),
        ("count", 1.5, "example.count is 1.5; it must be a whole number, at least 1."),
        ("count", True, "example.count is True; it must be a whole number, at least 1."),
        ("count", "many", "example.count is 'many'; it must be a whole number, at least 1."),
        ("count", None, "example.count is None; it must be a whole number, at least 1."),
        ("passes", 0, "example.passes is 0; it must be at least 1."),
        ("share", 1.0, "example.share is 1.0; it must be in [0, 1)."),
        ("validation", 0.6, "example.validation is 0.6; it must be in [0, 0.5]."),
        ("clip", 0, "example.clip is 0; it must be in (0, 1)."),
        ("rate", 0, "example.rate is 0; it must be above 0."),
        ("rate", math.nan, "example.rate is nan; it must be above 0."),
        ("sigma", math.inf, "example.sigma is inf; it must be above 0 and finite."),
        ("decay", -1, "example.decay is -1; it cannot be negative."),
        ("weight", math.inf, "example.weight is inf; it must be a finite number."),
        ("plain", math.nan, "example.plain is nan; it must be a number."),
        ("plain", [1], "example.plain is [1]; it must be a number."),
        ("rule", "scores", "example.rule is 'scores'. Did you mean 'score'? It must be one of random, score."),
        ("rule", [], "example.rule is []. It must be one of random, score."),
        ("names", "emoji", "example.names is 'emoji'; it must be a list: write ['emoji']."),
        ("names", "", "example.names is ''; it must be a list: write ['']."),
        ("names", {"a": 1}, "example.names is {'a': 1}; it must be a list."),
        ("names", 5, "example.names is 5; it must be a list."),
        ("names", None, "example.names is None; it must be a list."),
        ("sizes", "64,32", "example.sizes is '64,32'; it must be a list: write [64,32]."),
        ("sizes", 64, "example.sizes is 64; it must be a list: write [64]."),
    ],
)
def test_refusals_say_what_is_allowed(name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        Example(**{name: value})
    assert str(error.value) == words
    with pytest.raises(ConfigError) as built:
        build(Example, {name: value})
    assert str(built.value) == words


def test_what_is_allowed_is_taken_as_it_is() -> None:
    made = Example(count=3, passes=2, plain=math.inf, weight=2, rule="score")
    assert (made.count, made.passes, made.plain, made.weight, made.rule) == (3, 2, math.inf, 2, "score")
    assert build(Example, {"count": "3", "rate": "1e-3", "passes": None}) == Example(count=3, rate=0.001)
    with pytest.raises(ConfigError, match="Unknown setting 'prefix'"):
        build(Example, {"prefix": "x"})
    assert declarations(Example)["count"].help == "how many"
    assert declarations(Example)["name"].help == ""


@pytest.mark.parametrize("value", [2**63, -(2**64), 10**6000], ids=["64 bits", "below", "6,000 digits"])
def test_whole_numbers_beyond_any_use_are_refused(value: int) -> None:
    with pytest.raises(ConfigError, match="at most 18 digits") as error:
        ProtocolConfig(rounds=value)
    assert len(str(error.value)) < 150
