"""Actions: what is read, what is refused in words, and what is made of repeated and invalid slots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.actions import action_masks, check_slots, distinct_slots, read_slots

K = 20


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(0, 12), st.integers(1, 5))
@settings(deadline=None, max_examples=200)
def test_distinct_slots(seed: int, b: int, spare: int, episodes: int) -> None:
    rng = np.random.default_rng(seed)
    k = b + spare + 3
    valid = rng.random((episodes, k)) < 0.5
    for row in valid:
        row[rng.permutation(k)[:b]] = True
    slots = rng.integers(-1, k + 1, (episodes, b))
    before = slots.copy(), valid.copy()
    repaired, replaced = distinct_slots(slots, valid)
    assert np.array_equal(slots, before[0]) and np.array_equal(valid, before[1])
    for e in range(episodes):
        kept = [
            i for i in range(b) if 0 <= slots[e, i] < k and valid[e, slots[e, i]] and slots[e, i] not in slots[e, :i]
        ]
        free = [s for s in np.flatnonzero(valid[e]) if s not in slots[e, kept]]
        expected = slots[e].copy()
        others = [i for i in range(b) if i not in kept]
        expected[others] = free[: len(others)]
        assert repaired[e].tolist() == expected.tolist()
        assert replaced[e] == len(others)
    check_slots(repaired, valid)
    if replaced.any():
        with pytest.raises(ValueError, match="names a"):
            check_slots(slots, valid)


@pytest.mark.parametrize(
    "given_",
    [
        [3, 0, 19],
        (3, 0, 19),
        np.array([3, 0, 19], np.uint8),
        np.array([3, 0, 19], np.int32),
        np.array([3.0, 0.0, 19.0], np.float32),
        torch.tensor([3, 0, 19]),
        np.array([3, 0, 19], ">i8"),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
def test_whole_numbers_of_any_type_are_read(given_: Any) -> None:
    read = read_slots(given_, (3,), K)
    assert read.dtype == np.int64
    assert read.tolist() == [3, 0, 19]


def test_what_lies_outside_stays_outside() -> None:
    assert read_slots([-7, K, 2**40], (3,), K).tolist() == [-1, K, K]
    assert read_slots(np.array([1, 2, 2**64 - 1], np.uint64), (3,), K).tolist() == [1, 2, K]
    assert read_slots([1e300, -1e300, 5.0], (3,), K).tolist() == [K, -1, 5]


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ([np.nan, 1, 2], "holds nan"),
        ([np.inf, 1, 2], "holds inf"),
        ([0.5, 1, 2], "holds 0.5"),
        (None, "is None; expected whole numbers"),
        ("abc", "is 'abc'"),
        ({"a": 1}, "is {'a': 1}"),
        ([True, False, True], r"is \[True, False, True\]"),
        (["0", "1", "2"], "expected whole numbers"),
        ([None, 1, 2], "expected whole numbers"),
        ([1j, 1, 2], "expected whole numbers"),
        ([[0, 1], [2]], "no array of whole numbers"),
        (3, r"has shape \[\]; expected \[3\]"),
        ([0, 1], r"has shape \[2\]; expected \[3\]"),
        ([[0, 1, 2]], r"has shape \[1, 3\]; expected \[3\]"),
        ([], r"has shape \[0\]; expected \[3\]"),
    ],
)
def test_what_is_no_action_is_refused_in_words(given_: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_slots(given_, (3,), K)


def test_masks_stand_one_after_the_other() -> None:
    valid = np.array([[True, False, True], [True, True, False]])
    assert action_masks(valid, 2).tolist() == [[True, False, True] * 2, [True, True, False] * 2]
