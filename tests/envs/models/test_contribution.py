"""Shapley values: the axioms, and the contributions of modalities against a slow reference."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from envs.models.contribution import accuracy_contributions, sample_contributions, shapley_values
from envs.round import Round

games = st.integers(1, 4).flatmap(
    lambda m: st.lists(st.floats(-5, 5), min_size=2**m, max_size=2**m).map(lambda v: torch.tensor(v).double())
)


def by_orders(worth: Tensor) -> Tensor:
    """Mean of what a player adds over all orders of arrival."""
    players = len(worth).bit_length() - 1
    total = worth.new_zeros(players)
    orders = list(permutations(range(players)))
    for order in orders:
        coalition = 0
        for m in order:
            joined = coalition | 1 << m
            total[m] += worth[joined] - worth[coalition]
            coalition = joined
    return total / len(orders)


@given(games)
def test_shapley_values_are_the_mean_over_all_orders(worth: Tensor) -> None:
    phi = shapley_values(worth)
    assert torch.allclose(phi, by_orders(worth), atol=1e-9)
    assert phi.sum().item() == pytest.approx((worth[-1] - worth[0]).item(), abs=1e-9)


@given(games, st.data())
def test_a_player_that_adds_nothing_gets_nothing(worth: Tensor, data: st.DataObject) -> None:
    players = len(worth).bit_length() - 1
    idle = data.draw(st.integers(0, players - 1))
    without = torch.tensor([worth[s & ~(1 << idle)].item() for s in range(len(worth))]).double()
    assert abs(shapley_values(without)[idle].item()) < 1e-9


def coalition_logits(round_: Round, coalition: int, hidden: Tensor) -> Tensor:
    """Logits with the modalities outside the coalition zeroed, as the multimodal head itself computes them."""
    kept = torch.stack([hidden[:, m] * (coalition >> m & 1) for m in range(hidden.shape[1])], 1)
    return torch.bmm(round_.model.head, kept.flatten(1, 2))


@pytest.mark.parametrize("which", ["pool", "missing_pool", "single_pool"])
def test_contributions_come_from_zeroed_modalities(which: str, begin, request) -> None:
    _, round_ = begin(request.getfixturevalue(which), (0, 1))
    outputs = round_.outputs
    hidden, head = outputs.hidden, round_.model.head
    modalities = hidden.shape[1]
    predicted = outputs.logits.argmax(1)
    phi = sample_contributions(head, hidden, predicted)
    worth = [
        torch.softmax(coalition_logits(round_, s, hidden), 1).gather(1, predicted[:, None])[:, 0]
        for s in range(2**modalities)
    ]
    for row in (0, 7, 20):
        expected = by_orders(torch.stack([w[1, row] for w in worth]).double())
        assert torch.allclose(phi[1, :, row].double(), expected, atol=1e-6)
    if outputs.present is not None:
        assert (~outputs.present).any()
        assert phi.masked_select(~outputs.present).abs().max() < 1e-6


def test_accuracy_contributions_add_up_to_what_is_above_chance(begin, pool) -> None:
    simulation, _ = begin(pool, (0, 1, 2))
    phi = simulation.contributions()
    accuracy = simulation.measure().accuracy
    assert phi.shape == (3, 2)
    assert torch.allclose(phi.sum(1), accuracy - 1 / pool.num_classes, atol=1e-6)
    assert phi.std() > 0


def test_accuracy_contributions_follow_the_informative_modality() -> None:
    """Two classes; modality 0 tells them apart, modality 1 says the same of every row."""
    labels = torch.tensor([[0, 1, 0, 1]])
    hidden = torch.ones(1, 2, 1, 4)
    hidden[0, 0, 0] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    head = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    assert torch.allclose(accuracy_contributions(head, hidden, labels), torch.tensor([[0.5, 0.0]]), atol=1e-6)
