"""Every strategy keeps the contract, the contract notices who does not, and strategies pick what they promise."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
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
from envs.round import Round, Stopwatch
from policies.selector import Selector, SelectorConfig
from policies.strategies import STRATEGIES, Strategy, get_strategy
from policies.strategies.badge import gradient_factor
from policies.strategies.contract import check_strategy, contract_pools
from policies.strategies.learned import Learned


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


@pytest.fixture(scope="module")
def rounds(pool, missing_pool, begin) -> dict[str, Round]:
    x = {m: np.asarray(x)[np.arange(pool.num_samples) % 5] for m, x in pool.features.items()}
    pools = {
        "plain": pool,
        "missing modalities": missing_pool,
        "duplicates": dataclasses.replace(pool, features=x),
    }
    made = {name: begin(p, (0, 1), copies=2)[1] for name, p in pools.items()}
    simulation, round_ = begin(pool, (0, 1), copies=2)
    made["a later round"] = simulation.label(round_.available.int().topk(B, dim=1).indices)
    return made


# The contract


@pytest.mark.parametrize("name", EVERY)
def test_contract(name: str) -> None:
    check_strategy(EVERY[name])


@pytest.mark.parametrize("name", EVERY)
def test_starts_pick_each_their_own(name: str, rounds: dict[str, Round]) -> None:
    picks = EVERY[name](rounds["plain"], B)
    assert not torch.equal(picks[0], picks[2])


def first_free(round_: Round, b: int) -> Tensor:
    return torch.stack([row.nonzero()[:b, 0] for row in round_.available])


def best(scores: Tensor, round_: Round, b: int) -> Tensor:
    return scores.masked_fill(~round_.available, -torch.inf).topk(b, dim=1).indices


def writing_into_the_weights(round_: Round, b: int) -> Tensor:
    round_.weights[:, 0] = 0.5
    return first_free(round_, b)


CALLS = itertools.count()


def marking_what_it_took(round_: Round, b: int) -> Tensor:
    picks = first_free(round_, b)
    round_.available.scatter_(1, picks, False)
    return picks


def taking_turns(round_: Round, b: int) -> Tensor:
    return first_free(round_, b).roll(next(CALLS) % 2, 1)


def each_episode_its_own(round_: Round, b: int) -> Tensor:
    turned = torch.arange(round_.available.shape[1]) + 7 * torch.arange(round_.episodes)[:, None]
    return best(-(turned % round_.available.shape[1]).float(), round_, b)


def compared_with_the_others(round_: Round, b: int) -> Tensor:
    u = round_.outputs.probabilities.amax(1)
    return best((u - u.mean(0)).abs(), round_, b)


def two_modalities_taken_for_granted(round_: Round, b: int) -> Tensor:
    return best(round_.outputs.probabilities.amax(1) * round_.weights[:, 1, None], round_, b)


def best_of_a_few(round_: Round, b: int) -> Tensor:
    return first_free(round_, 10)[:, :b]


WRONG: dict[str, tuple[Strategy, str]] = {
    "too few": (lambda r, b: first_free(r, b)[:, 1:], r"int64 \[4, 4\]; got torch.int64 \[4, 3\] on the pool 'plain'"),
    "int32": (lambda r, b: first_free(r, b).int(), r"got torch.int32 \[4, 4\] on the pool 'plain'"),
    "numpy": (lambda r, b: first_free(r, b).numpy(), "got ndarray on the pool 'plain'"),
    "repeated": (
        lambda r, b: first_free(r, b)[:, [0, *range(b - 1)]],
        "is picked twice in episode 0 of the pool 'plain'",
    ),
    "labelled": (lambda r, b: r.labelled[:, :b], "though it is labelled in episode 0 of the pool 'plain'"),
    "outside": (lambda r, b: first_free(r, b) + 10**6, r"lies outside 0 .. \d+ in episode 0 of the pool 'plain'"),
    "negative": (lambda r, b: first_free(r, b) - 10**6, r"lies outside 0 .. \d+ in episode 0 of the pool 'plain'"),
    "global draws": (
        lambda r, b: best(torch.rand(r.available.shape[1]).expand(r.available.shape), r, b),
        r"Two calls gave different picks on the pool 'plain'.*\(episode 0: \[",
    ),
    "state": (taking_turns, "Two calls gave different picks on the pool 'plain'"),
    "picks marked": (marking_what_it_took, "changed round_.available on the pool 'plain'"),
    "mutation": (writing_into_the_weights, "changed round_.weights on the pool 'plain'"),
    "copies": (each_episode_its_own, r"Copies of a start got different picks on the pool 'plain' \(episode 0: "),
    "neighbours": (compared_with_the_others, r"the episodes beside them on the pool 'plain' \(episode 0: "),
    "one modality": (two_modalities_taken_for_granted, "fails on the pool 'one modality' at a batch of 4: IndexError"),
    "large batches": (best_of_a_few, r"int64 \[4, \d+\]; got torch.int64 \[4, 10\] on the pool 'plain'"),
}


@pytest.mark.parametrize("violation", WRONG)
def test_the_contract_notices(violation: str) -> None:
    select, message = WRONG[violation]
    with pytest.raises(StrategyError, match=message):
        check_strategy(select)


def test_the_contract_takes_what_keeps_it_and_leaves_the_generators_alone() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(1), np.random.random()
    torch.manual_seed(3)
    np.random.seed(3)
    check_strategy(first_free)
    assert (torch.rand(1), np.random.random()) == expected


def test_the_contracts_pools_are_what_their_names_say(begin) -> None:
    pools = contract_pools()
    assert not pools["missing modalities"].present.all() and len(pools["one modality"].modalities) == 1
    assert all(len(np.unique(x, axis=0)) == 5 for x in pools["five distinct rows"].features.values())
    assert len(begin(pools["one class predicted"], (0, 1))[1].outputs.probabilities.argmax(1).unique()) == 1


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


class Recorder(Stopwatch):
    """A stopwatch that knows what it was asked to measure."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: list[str] = []

    def measure(self, kind: str) -> AbstractContextManager[None]:
        self.kinds.append(kind)
        return super().measure(kind)


@pytest.mark.parametrize("name", EVERY)
def test_putting_the_batch_together_is_timed(name: str, rounds: dict[str, Round]) -> None:
    stopwatch = Recorder()
    EVERY[name](dataclasses.replace(rounds["plain"], stopwatch=stopwatch), B)
    assert "picking" in stopwatch.kinds


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
