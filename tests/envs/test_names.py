"""Names that are made distinct."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.names import unique_names

# Few letters and endings that look like numbers of our own, so that names do collide.
NAMES = st.lists(st.builds("{}{}".format, st.sampled_from("ab"), st.sampled_from(["", "-2", "-3", "-2-2"])), max_size=9)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["a", "b", "a", "a"], ["a", "b", "a-2", "a-3"]),
        (["a", "a", "a-2"], ["a", "a-2", "a-2-2"]),
        (["s", "s-2", "s", "s"], ["s", "s-2", "s-3", "s-4"]),
    ],
)
def test_by_hand(names: list[str], expected: list[str]) -> None:
    assert unique_names(names) == expected


@given(NAMES)
def test_all_differ_and_none_changes_without_need(names: list[str]) -> None:
    unique = unique_names(names)
    assert len(unique) == len(set(unique)) == len(names)
    for i, (name, given_) in enumerate(zip(unique, names, strict=True)):
        assert name == given_ or (name.startswith(f"{given_}-") and given_ in unique[:i])
    assert unique_names(unique) == unique


@given(NAMES, NAMES)
def test_further_names_change_none(names: list[str], further: list[str]) -> None:
    assert unique_names(names + further)[: len(names)] == unique_names(names)
