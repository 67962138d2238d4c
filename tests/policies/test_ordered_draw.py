"""The ordered draw: its probabilities are those of drawing one after another without replacement."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from policies.ordered_draw import draw, log_probability

checked = settings(deadline=None, max_examples=40)


@st.composite
def cases(draw_: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Utilities [b, K] that change from pick to pick, valid [K], b."""
    rng = np.random.default_rng(draw_(st.integers(0, 2**32 - 1)))
    k = draw_(st.integers(1, 6))
    valid = rng.random(k) < 0.8
    valid[draw_(st.integers(0, k - 1))] = True
    b = draw_(st.integers(1, min(3, int(valid.sum()))))
    return torch.from_numpy(rng.normal(0, 2, (b, k))), torch.from_numpy(valid), b


def ordered_picks(valid: Tensor, b: int) -> Tensor:
    return torch.tensor(list(itertools.permutations(valid.nonzero()[:, 0].tolist(), b)))


def one_by_one(utilities: np.ndarray, valid: np.ndarray, picks: list[int]) -> float:
    """log-probability by its definition: softmax over what is left, pick after pick."""
    left = set(np.flatnonzero(valid).tolist())
    total = 0.0
    for u, pick in zip(utilities, picks, strict=True):
        total += math.log(math.exp(u[pick]) / sum(math.exp(u[k]) for k in left))
        left.remove(pick)
    return total


@given(cases())
@checked
def test_probabilities_of_all_draws_sum_to_one_and_agree_with_the_definition(case) -> None:
    utilities, valid, b = case
    picks = ordered_picks(valid, b)
    n = len(picks)
    logp = log_probability(utilities[None].expand(n, -1, -1), picks, valid[None].expand(n, -1))
    assert logp.exp().sum().item() == pytest.approx(1.0)
    expected = [one_by_one(utilities.numpy(), valid.numpy(), p) for p in picks.tolist()]
    np.testing.assert_allclose(logp, expected, rtol=1e-9, atol=1e-12)


@given(cases())
@checked
def test_utilities_that_stay_take_the_short_path_to_the_same_result(case) -> None:
    utilities, valid, b = case
    picks = ordered_picks(valid, b)
    n = len(picks)
    still = utilities[:1].clone().requires_grad_()
    mask = valid[None].expand(n, -1)
    short = log_probability(still[None].expand(n, -1, -1), picks, mask)
    (gradient,) = torch.autograd.grad(short[0], still, retain_graph=True)
    assert short.exp().sum().item() == pytest.approx(1.0)
    long = log_probability(still.expand(b, -1)[None].expand(n, -1, -1), picks, mask)
    torch.testing.assert_close(short, long)
    torch.testing.assert_close(gradient, torch.autograd.grad(long[0], still)[0])
    repeated = still.detach().numpy().repeat(b, 0)
    expected = [one_by_one(repeated, valid.numpy(), p) for p in picks.tolist()]
    np.testing.assert_allclose(short.detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("changing", [False, True])
@pytest.mark.parametrize("spare", [0, 30])
def test_huge_utilities_and_masked_slots_stay_finite(changing: bool, spare: int) -> None:
    generator = torch.Generator().manual_seed(0)
    b, k = 8, 50
    valid = torch.zeros(16, k, dtype=torch.bool)
    for row in valid:
        row[torch.randperm(k, generator=generator)[: b + spare]] = True
    u = (100 * torch.randn(16, b if changing else 1, k, generator=generator)).requires_grad_()
    for greedy in (False, True):
        picks, logp = draw(lambda j, _: u.detach()[:, j if changing else 0], valid, b, greedy, generator)
        assert valid.gather(1, picks).all()
        replayed = log_probability(u, picks, valid)
        torch.testing.assert_close(replayed.detach(), logp, atol=1e-3, rtol=1e-5)
        (gradient,) = torch.autograd.grad(replayed.sum(), u)
        assert replayed.isfinite().all()
        assert (replayed <= 1e-3).all()
        assert gradient.isfinite().all()
        assert (gradient[~valid[:, None].expand_as(gradient)] == 0).all()


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0, 100.0]), st.booleans())
@checked
def test_draws_are_valid_and_without_repeats(seed: int, spread: float, greedy: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    valid = torch.rand(20, 9, generator=generator) < 0.4
    valid[:, :4] = True
    u = spread * torch.randn(4, 20, 9, generator=generator)
    picks, logp = draw(lambda j, _: u[j], valid, 4, greedy, generator)
    assert valid.gather(1, picks).all()
    assert all(len(set(row)) == 4 for row in picks.tolist())
    replayed = log_probability(u.transpose(0, 1), picks, valid)
    torch.testing.assert_close(logp, replayed, atol=1e-5 * max(spread, 10.0), rtol=1e-5)  # numbers near 400 cancel


def frequencies(utilities, valid: Tensor, b: int, n: int, seed: int) -> tuple[Tensor, np.ndarray, Tensor]:
    """All ordered draws, how often each came up in n draws, and the log-probabilities that `draw` named."""
    generator = torch.Generator().manual_seed(seed)
    picks, logp = draw(utilities, valid[None].expand(n, -1), b, False, generator)
    every = ordered_picks(valid, b)
    number = {tuple(p): i for i, p in enumerate(every.tolist())}
    which = torch.tensor([number[tuple(p)] for p in picks.tolist()])
    stated = torch.full((len(every),), float("nan"), dtype=logp.dtype).scatter(0, which, logp)
    return every, np.bincount(which, minlength=len(every)), stated


def test_frequencies_match_the_probabilities() -> None:
    n, valid = 8000, torch.tensor([True, True, False, True, True])
    u = torch.tensor([0.5, -0.3, 9.0, 0.8, 0.0], dtype=torch.float64)
    every, counts, stated = frequencies(lambda j, _: u.expand(n, -1), valid, 2, n, seed=3)
    logp = log_probability(u[None, None].expand(len(every), 1, -1), every, valid[None].expand(len(every), -1))
    torch.testing.assert_close(stated, logp)
    assert chisquare(counts, n * logp.exp().numpy()).pvalue > 0.01


def test_frequencies_match_where_utilities_depend_on_the_previous_pick() -> None:
    n, valid = 8000, torch.ones(4, dtype=torch.bool)
    first = torch.tensor([0.3, 0.0, -0.5, 0.7], dtype=torch.float64)
    then = torch.tensor([[0, 1, 0, -1], [1, 0, -1, 0], [0.5, 0.5, 0, 0], [0, -1, 1, 0]], dtype=torch.float64)

    def utilities(j: int, previous: Tensor | None) -> Tensor:
        return first.expand(n, -1) if previous is None else then[previous]

    every, counts, stated = frequencies(utilities, valid, 2, n, seed=4)
    in_force = torch.stack([first.expand(len(every), -1), then[every[:, 0]]], 1)
    logp = log_probability(in_force, every, valid[None].expand(len(every), -1))
    torch.testing.assert_close(stated, logp)
    assert chisquare(counts, n * logp.exp().numpy()).pvalue > 0.01


def test_greedy_takes_the_largest_utility_each_time() -> None:
    u = torch.tensor([[[0.0, 3.0, 2.0, 9.0]], [[5.0, 1.0, 4.0, 9.0]]])  # [b, 1, K]
    valid = torch.tensor([[True, True, True, False]])
    picks, _ = draw(lambda j, _: u[j], valid, 2, greedy=True)
    assert picks.tolist() == [[1, 0]]
    still, _ = draw(lambda j, _: u[0], valid, 3, greedy=True)
    assert still.tolist() == [[1, 2, 0]]


def test_the_previous_pick_is_handed_on() -> None:
    seen = []

    def utilities(j: int, previous: Tensor | None) -> Tensor:
        seen.append((j, None if previous is None else previous.tolist()))
        return torch.tensor([[1.0, 2.0, 3.0]])

    draw(utilities, torch.ones(1, 3, dtype=torch.bool), 3, greedy=True)
    assert seen == [(0, None), (1, [2]), (2, [1])]


def test_too_few_valid_candidates_are_refused() -> None:
    valid = torch.tensor([[True, True, True], [True, False, False]])
    with pytest.raises(ValueError, match=r"draw of 2 .* a row has 1"):
        draw(lambda j, _: torch.zeros(2, 3), valid, 2, greedy=False)
