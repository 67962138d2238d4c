"""The contract of every strategy: a valid batch, the same for the same start, whatever the pool looks like."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

import policies.strategies
from envs.candidates import CandidateConfig
from envs.candidates.published_score import published_score
from envs.errors import StrategyError
from envs.kmeanspp import d_squared_sampling
from envs.pools import Pool
from envs.round import Round, Stopwatch
from policies.selector import Selector, SelectorConfig
from policies.strategies import STRATEGIES, Strategy, get_strategy
from policies.strategies.badge import gradient_factor
from policies.strategies.learned import Learned
from tests.support.rounds import with_head


def learned_strategy() -> Learned:
    selector = Selector(SelectorConfig(mlp=(5,)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in selector.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return Learned(selector, CandidateConfig(per_pick=10))


EVERY: dict[str, Strategy] = STRATEGIES | {
    "learned": learned_strategy(),
    "learned by score": Learned(Selector(SelectorConfig()), CandidateConfig("score", 5)),
}
B = 4


def like(pool: Pool, change: Callable[[np.ndarray], np.ndarray]) -> Pool:
    """The pool with other features; no row is missing anything."""
    features = {m: change(np.asarray(x)) for m, x in pool.features.items()}
    return dataclasses.replace(pool, features=features)


def one_class_predicted(round_: Round) -> Round:
    """The same round, the multimodal head insisting on class 2."""
    return with_head(round_, 2, 5.0)


CASES = ("plain", "missing modalities", "one modality", "duplicates", "all rows alike", "a constant feature",
         "one class predicted", "a later round")  # fmt: skip


@pytest.fixture(scope="module")
def rounds(pool, missing_pool, single_pool, begin) -> dict[str, Round]:
    def constant(x: np.ndarray) -> np.ndarray:
        changed = x.copy()
        changed[:, 0] = 3.0
        return changed

    pools = {
        "plain": pool,
        "missing modalities": missing_pool,
        "one modality": single_pool,
        "duplicates": like(pool, lambda x: x[np.arange(len(x)) % 5]),
        "all rows alike": like(pool, lambda x: np.ones_like(x)),
        "a constant feature": like(pool, constant),
    }
    made = {name: begin(p, (0, 1), copies=2)[1] for name, p in pools.items()}
    made["one class predicted"] = one_class_predicted(made["plain"])
    simulation, round_ = begin(pool, (0, 1), copies=2)
    made["a later round"] = simulation.label(round_.available.int().topk(B, dim=1).indices)
    assert set(made) == set(CASES)
    return made


def check_batch(picks: Tensor, round_: Round, b: int) -> None:
    assert picks.shape == (round_.episodes, b)
    assert picks.dtype == torch.int64
    assert ((picks >= 0) & (picks < round_.available.shape[1])).all()
    assert round_.available.gather(1, picks).all()
    assert all(len(set(row)) == b for row in picks.tolist())


def tensors(value: object) -> Iterable[Tensor]:
    """Every tensor that a round holds, those of its model and outputs included."""
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for item in vars(value).values():  # cached properties too
            yield from tensors(item)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", EVERY)
def test_contract(name: str, case: str, rounds: dict[str, Round]) -> None:
    round_ = dataclasses.replace(rounds[case])  # nothing cached yet
    _ = round_.outputs
    before = [t.clone() for t in tensors(round_)]
    picks = EVERY[name](round_, B)
    check_batch(picks, round_, B)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(round_), strict=False))
    # The same again, whatever the global generators are at.
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(EVERY[name](dataclasses.replace(round_), B), picks)
    # One label at a time, and the last labels of a pool.
    check_batch(EVERY[name](round_, 1), round_, 1)


@pytest.mark.parametrize("case", ["plain", "missing modalities", "all rows alike"])
@pytest.mark.parametrize("name", EVERY)
def test_contract_where_a_batch_is_all_that_remains(name: str, case: str, rounds: dict[str, Round]) -> None:
    whole = rounds[case]
    available = torch.zeros_like(whole.available)
    few = whole.available.int().topk(6, dim=1).indices
    round_ = dataclasses.replace(whole, available=available.scatter(1, few, True))
    picks = EVERY[name](round_, 6)
    check_batch(picks, round_, 6)
    check_batch(EVERY[name](whole, int(whole.available[0].sum())), whole, int(whole.available[0].sum()))


@pytest.mark.parametrize("name", EVERY)
def test_copies_pick_alike_while_they_are_alike(name: str, rounds: dict[str, Round]) -> None:
    picks = EVERY[name](rounds["plain"], B)
    assert torch.equal(picks[0], picks[1])
    assert torch.equal(picks[2], picks[3])
    assert not torch.equal(picks[0], picks[2])


@pytest.mark.parametrize("which", ["pool", "missing_pool"])
@pytest.mark.parametrize("name", EVERY)
def test_neighbours_in_the_lockstep_do_not_matter(name: str, which: str, begin, request) -> None:
    pool = request.getfixturevalue(which)
    strategy = EVERY[name]
    together = strategy(begin(pool, (5, 6, 7))[1], B)
    pairs = strategy(begin(pool, (7, 5))[1], B)
    alone = strategy(begin(pool, (6,))[1], B)
    assert torch.equal(together[1], alone[0])
    assert torch.equal(together[[2, 0]], pairs)


def test_uncertainty_strategies_pick_what_is_most_uncertain(rounds: dict[str, Round]) -> None:
    round_ = rounds["a later round"]
    p = round_.outputs.probabilities.double().numpy()
    top = np.sort(p, 1)
    for name, u in (
        ("least_confidence", 1.0 - top[:, -1]),
        ("margin", top[:, -2] - top[:, -1]),
        ("entropy", -(p * np.log(p)).sum(1)),
    ):
        picks = STRATEGIES[name](round_, B)
        for e in range(round_.episodes):
            open_ = np.flatnonzero(round_.available[e])
            expected = open_[np.argsort(-u[e, open_])[:B]]
            assert set(picks[e].tolist()) == set(expected.tolist()), name


def test_score_picks_the_largest_q(rounds: dict[str, Round]) -> None:
    round_ = rounds["a later round"]
    q = published_score(round_, B, beta=1.0).q
    picks = STRATEGIES["score"](round_, B)
    for e in range(round_.episodes):
        open_ = np.flatnonzero(round_.available[e])
        assert picks[e].tolist() == open_[np.argsort(-q[e, open_].numpy())[:B]].tolist()


@pytest.mark.parametrize("case", ["plain", "missing modalities", "a later round"])
def test_badge_picks_as_if_gradients_were_written_out(case: str, rounds: dict[str, Round]) -> None:
    round_ = rounds[case]
    error, z = gradient_factor(round_.outputs)
    rows = torch.einsum("ecp,ehp->echp", error.double(), z.double()).flatten(1, 2)
    one = torch.ones_like(rows[:, :1])
    first = rows.square().sum(1).masked_fill(~round_.available, -1.0).argmax(1)
    picks, _ = d_squared_sampling([(one, rows)], round_.available, round_.uniforms("badge", 12), first)
    assert torch.equal(STRATEGIES["badge"](round_, 12), picks)


@pytest.mark.parametrize("name", EVERY)
def test_putting_the_batch_together_is_timed(name: str, rounds: dict[str, Round]) -> None:
    round_ = dataclasses.replace(rounds["plain"], stopwatch=Stopwatch())
    EVERY[name](round_, B)
    assert round_.stopwatch.seconds["picking"] > 0


def test_badge_begins_with_the_largest_gradient(rounds: dict[str, Round]) -> None:
    round_ = rounds["plain"]
    out = round_.outputs
    p = out.probabilities
    error = p - torch.nn.functional.one_hot(p.argmax(1), p.shape[1]).mT
    rows = torch.einsum("ecp,ehp->epch", error, out.embedding()).flatten(2)
    norm = rows.square().sum(2).masked_fill(~round_.available, -1.0)
    picks = STRATEGIES["badge"](round_, B)
    assert torch.equal(picks[:, 0], norm.argmax(1))


def test_badge_avoids_duplicates(rounds: dict[str, Round]) -> None:
    """Five distinct rows: the first five picks are all different, though each has many copies."""
    round_ = rounds["duplicates"]
    picks = STRATEGIES["badge"](round_, 5)
    for e in range(round_.episodes):
        x = round_.model.inputs()[e // 2][:, picks[e]]
        assert (torch.cdist(x.T, x.T) + torch.eye(5)).min() > 0.1


# The register


def unregistered(modules: Iterable[ModuleType], registered: Iterable[Strategy]) -> list[str]:
    """Public functions with a strategy's signature, defined in `modules`, that nobody entered."""
    known = set(map(id, registered))
    found = []
    for module in modules:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            signature = list(inspect.signature(function).parameters)
            is_strategy = function.__module__ == module.__name__ and signature == ["round_", "batch_size"]
            if is_strategy and not name.startswith("_") and id(function) not in known:
                found.append(f"{module.__name__}.{name}")
    return found


def test_every_strategy_in_a_file_is_registered() -> None:
    names = [m.name for m in pkgutil.iter_modules(policies.strategies.__path__)]
    modules = [importlib.import_module(f"policies.strategies.{name}") for name in names]
    assert {"badge", "random", "uncertainty", "learned"} <= set(names)
    assert unregistered(modules, STRATEGIES.values()) == []
    # The check itself notices one that is left out.
    some = [s for name, s in STRATEGIES.items() if name != "entropy"]
    assert unregistered(modules, some) == ["policies.strategies.uncertainty.entropy"]


@pytest.mark.parametrize(("wrong", "right"), [("bagde", "badge"), ("Margin", "margin"), ("handtuned", "hand_tuned")])
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(StrategyError, match=f"{wrong}.*Did you mean '{right}'.*Strategies: random"):
        get_strategy(wrong)
    assert get_strategy(right) is STRATEGIES[right]
