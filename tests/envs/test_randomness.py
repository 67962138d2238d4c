"""Random streams: one for each purpose, equal wherever it is asked for, and those that published figures rest on."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs import randomness
from envs.randomness import round_stream, start_seed, stream

# As they were when the published figures were made.
PUBLISHED = {
    "initial parameters": [5, 0x7A5C],
    "initial labels": [5, 0x51A7],
    "dropout": [5, 0xD80],
    "evolution: search": [5, 1],
    "evolution: pools": [5, 2],
    "evolution: protocols": [5, 3],
    "synthetic: rows": [5, 0],
    "synthetic: clusters": [5, 1],
    "synthetic: order": [5, 2],
    "synthetic: outliers": [5, 3],
    "synthetic: label_noise": [5, 4],
    "synthetic: missing": [5, 5],
    "synthetic: corruption": [5, 6],
    "labelling: measuring rows": [5, 0x7E57],
    "labelling: measuring order": [5, 0xEA5],
    "labelling: stop set": [5, 0x57],
    "partition": [1, 5],
    "training roles": [2, 5],
    "evaluation roles": [3, 5],
}
SINCE = ("minibatches", "labelling: working rows")  # whose keys are hashes
SEEDS = st.integers(0, 2**31 - 1)
NUMBERS = st.lists(st.integers(1, 2**31 - 1), max_size=2)


def state(generator: np.random.Generator) -> int:
    """What all its draws follow from."""
    return generator.bit_generator.state["state"]["state"]


@pytest.mark.parametrize("purpose", PUBLISHED)
def test_published_streams_stay_what_they_were(purpose: str) -> None:
    assert state(stream(5, purpose)) == state(np.random.default_rng(PUBLISHED[purpose]))
    assert state(stream(5, purpose, 7, 8)) == state(np.random.default_rng([*PUBLISHED[purpose], 7, 8]))


def test_every_published_stream_is_listed_here() -> None:
    assert set(PUBLISHED) == {*randomness._KEYS, *randomness._BEFORE_THE_SEED}


def test_the_numbers_of_the_other_functions_stay_what_they_were() -> None:
    assert state(round_stream(5, 3, "ab")) == state(np.random.default_rng([5, 3, 97, 98]))
    assert [start_seed(0, number) for number in range(3)] == [
        int(np.random.SeedSequence([0, number]).generate_state(1)[0] % 2**31) for number in range(3)
    ]
    assert start_seed(1, 0) != start_seed(0, 1)


@given(SEEDS, NUMBERS, st.sampled_from([*PUBLISHED, *SINCE]))
def test_equal_for_equal(seed: int, numbers: list[int], purpose: str) -> None:
    assert state(stream(seed, purpose, *numbers)) == state(stream(seed, purpose, *numbers))


@given(SEEDS, SEEDS, NUMBERS, NUMBERS, st.sampled_from(SINCE), st.sampled_from([*PUBLISHED, *SINCE]))
def test_a_purpose_meets_no_other_whatever_the_seeds_and_numbers(
    seed: int, other_seed: int, numbers: list[int], other_numbers: list[int], purpose: str, other: str
) -> None:
    if (seed, numbers, purpose) != (other_seed, other_numbers, other):
        assert state(stream(seed, purpose, *numbers)) != state(stream(other_seed, other, *other_numbers))


@pytest.mark.parametrize(
    ("count", "met"), [(3_456, "dropout"), (20_903, "initial labels"), (31_324, "initial parameters")]
)
def test_minibatches_of_no_number_of_labels_meet_another_stream(count: int, met: str) -> None:
    """Seeded by [seed, count], those of these counts were the other stream."""
    assert state(np.random.default_rng([5, count])) == state(stream(5, met))
    assert state(stream(5, "minibatches", count)) != state(stream(5, met))


@pytest.mark.parametrize(
    "together",
    [
        ("initial parameters", "initial labels", "dropout", "minibatches", "partition"),
        tuple(p for p in PUBLISHED if p.startswith("evolution")),
        tuple(p for p in PUBLISHED if p.startswith("synthetic")),
        (*(p for p in PUBLISHED if p.startswith("labelling")), "labelling: working rows"),
        ("partition", "training roles", "evaluation roles"),
    ],
)
def test_streams_that_share_a_seed_differ(together: tuple[str, ...]) -> None:
    for seed in (0, 5):
        for one, other in combinations(together, 2):
            assert state(stream(seed, one)) != state(stream(seed, other)), (one, other)


def test_purposes_of_a_round_differ_from_each_other_and_from_round_to_round() -> None:
    streams = [round_stream(s, i, p) for s in range(3) for i in range(3) for p in ("badge", "typiclust")]
    assert len({state(generator) for generator in streams}) == len(streams)
