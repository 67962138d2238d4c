"""Advantages: what they must not depend on, and what survives a checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.advantages import ADVANTAGES, GroupAdvantages, MovingAverageAdvantages

checked = settings(deadline=None, max_examples=40)
T = 4


@st.composite
def iterations(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards [n, T], groups and sources [n], in shuffled order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups, copies = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    sources = rng.integers(0, 2, groups)
    order = rng.permutation(groups * copies)
    group = np.repeat(rng.permutation(50)[:groups], copies)[order]
    source = np.repeat(sources, copies)[order]
    return rng.normal(rng.normal(), 0.1, (groups * copies, T)), group, source


@given(iterations())
@checked
def test_group_advantages_have_no_mean_and_unit_spread(case) -> None:
    rewards, group, source = case
    advantages = GroupAdvantages()(rewards, group, source)
    assert advantages.shape == rewards.shape
    for g in np.unique(group):
        np.testing.assert_allclose(advantages[group == g].mean(0), 0, atol=1e-9)
    for s in np.unique(source):
        assert advantages[source == s].std() == pytest.approx(1.0, abs=1e-3)


@given(iterations(), st.floats(-100, 100), st.integers(0, T - 1))
@checked
def test_what_a_whole_group_shares_is_no_advantage(case, constant: float, at: int) -> None:
    rewards, group, source = case
    advantages = GroupAdvantages()(rewards, group, source)
    shifted = rewards.copy()
    shifted[group == group[0], at] += constant
    np.testing.assert_allclose(GroupAdvantages()(shifted, group, source), advantages, atol=1e-6)


@given(iterations(), st.floats(0.05, 100))
@checked
def test_the_scale_of_a_source_does_not_matter(case, factor: float) -> None:
    rewards, group, source = case
    advantages = GroupAdvantages()(rewards, group, source)
    scaled = np.where((source == source[0])[:, None], factor * rewards, rewards)
    np.testing.assert_allclose(GroupAdvantages()(scaled, group, source), advantages, rtol=1e-4, atol=1e-6)


@given(iterations(), st.randoms(use_true_random=False))
@checked
def test_the_order_of_episodes_does_not_matter(case, random) -> None:
    rewards, group, source = case
    order = list(range(len(group)))
    random.shuffle(order)
    np.testing.assert_allclose(
        GroupAdvantages()(rewards[order], group[order], source[order]),
        GroupAdvantages()(rewards, group, source)[order],
        atol=1e-9,
    )


def test_a_reward_counts_for_the_picks_before_it_only() -> None:
    """Two copies that differ in the reward of round 1 alone: rounds 0 and 1 earned it, round 2 did not."""
    rewards = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    advantages = GroupAdvantages()(rewards, np.zeros(2, int), np.zeros(2, int))
    assert advantages[0, 0] == advantages[0, 1] > 0
    assert advantages[0, 2] == 0
    np.testing.assert_allclose(advantages[1], -advantages[0])


def test_equal_copies_teach_nothing() -> None:
    advantages = GroupAdvantages()(np.full((6, T), 0.7), np.repeat([0, 1], 3), np.zeros(6, int))
    assert np.isfinite(advantages).all()
    assert np.abs(advantages).max() < 1e-6


def test_rewards_are_left_alone() -> None:
    rewards = np.random.default_rng(0).normal(size=(4, T))
    for make in ADVANTAGES.values():
        before = rewards.copy()
        make(0.9, 0.1)(rewards, np.repeat([0, 1], 2), np.zeros(4, int))
        np.testing.assert_array_equal(rewards, before)


def test_moving_average_follows_the_rewards() -> None:
    estimator = MovingAverageAdvantages(decay=0.75, clip=0.0)
    ids = np.zeros(3, int)
    one = estimator(np.array([[1.0], [2.0], [3.0]]), ids, ids)
    np.testing.assert_allclose(one[:, 0], [-1, 0, 1])  # the first iteration knows its own mean only
    two = estimator(np.array([[6.0], [6.0], [6.0]]), ids, ids)
    np.testing.assert_allclose(two, 4.0)  # against the 2 of the past
    three = estimator(np.array([[0.0], [0.0], [0.0]]), ids, ids)
    np.testing.assert_allclose(three, -3.0)  # 0.75 * 2 + 0.25 * 6


def test_moving_average_is_clipped() -> None:
    ids = np.zeros(3, int)
    advantages = MovingAverageAdvantages(0.9, 0.5)(np.array([[-2.0], [0.1], [2.0]]), ids, ids)
    assert advantages[:, 0].tolist() == [-0.5, pytest.approx(0.1 - 0.1 / 3), 0.5]


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("seen", [0, 2])
def test_the_state_survives_a_checkpoint(name: str, seen: int) -> None:
    rng = np.random.default_rng(1)
    group, source = np.repeat([0, 1], 3), np.zeros(6, int)
    original = ADVANTAGES[name](0.8, 0.0)
    for _ in range(seen):
        original(rng.normal(size=(6, T)), group, source)
    restored = ADVANTAGES[name](0.8, 0.0)
    restored(rng.normal(5, 1, (6, T)), group, source)  # what it knew is replaced
    restored.set_state(json.loads(json.dumps(original.get_state())))
    for _ in range(2):
        rewards = rng.normal(size=(6, T))
        np.testing.assert_array_equal(restored(rewards, group, source), original(rewards, group, source))
