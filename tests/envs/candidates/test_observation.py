"""The layout of an observation: spaces, precision, size and docs follow from one record."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from envs.candidates import (
    OBSERVATION,
    STATE,
    CandidateConfig,
    Candidates,
    observation_bytes,
    observation_space,
    offer,
)
from envs.multimodal_al import VectorMultimodalALEnv

SLOTS, FEATURES = 20, ("margin", "density", "rarity")


@pytest.fixture(scope="module")
def offered(pool, begin) -> Candidates:
    return offer(begin(pool, (0, 1))[1], 4, CandidateConfig(per_pick=5), FEATURES)


@pytest.mark.parametrize("half", [False, True])
def test_what_is_offered_lies_in_the_spaces(offered: Candidates, half: bool) -> None:
    arrays = {name: values.numpy() for name, values in offered.observation(half).items()}
    assert arrays.keys() == OBSERVATION.keys()
    assert observation_space(SLOTS, len(FEATURES), 2, half).contains(arrays)
    single = observation_space(SLOTS, len(FEATURES), half=half)
    for episode in range(2):
        assert single.contains({name: values[episode] for name, values in arrays.items()})
    assert not single.contains(arrays)


def test_shapes_and_precision_are_the_records(offered: Candidates) -> None:
    numbers = {"K": SLOTS, "F": len(FEATURES), "S": len(STATE)}
    public = offered.observation(half=False)
    for name, values in offered.observation().items():
        field = OBSERVATION[name]
        assert field.name == name
        assert values.dtype == getattr(torch, field.type_of(half=True))
        assert public[name].dtype == getattr(torch, field.dtype) != torch.float16
        assert torch.equal(public[name], values.to(public[name].dtype))
        assert values.shape == (2, *(numbers.get(size, size) for size in field.shape))
        as_offered = getattr(offered, name).double()
        torch.testing.assert_close(values.double(), as_offered, rtol=1e-3, atol=1e-3)  # half precision loses no more


@pytest.mark.parametrize(("slots", "features"), [(SLOTS, len(FEATURES)), (400, 12), (1, 0)])
def test_bytes_are_those_of_an_observation(slots: int, features: int) -> None:
    sample = observation_space(slots, features, half=True).sample()
    assert observation_bytes(slots, features) == sum(array.nbytes for array in sample.values())


def test_the_environments_docstring_describes_each_entry() -> None:
    words = " ".join(VectorMultimodalALEnv.__doc__.split())
    at = [words.index(str(field)) for field in OBSERVATION.values()]
    assert at == sorted(at)


def test_spaces_pickle_in_a_few_bytes() -> None:
    space = observation_space(400, 12, 96)
    assert len(pickle.dumps(space)) < 10_000
    again = pickle.loads(pickle.dumps(space))
    assert again == space
    assert {name: box.dtype for name, box in again.items()} == {n: np.dtype(f.dtype) for n, f in OBSERVATION.items()}
