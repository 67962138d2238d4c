"""Rounds that strategies are tried on."""

from __future__ import annotations

import pytest

from envs.round import Round
from tests.support.rounds import CASES


@pytest.fixture(scope="module")
def rounds(pool, missing_pool, single_pool, begin) -> dict[str, Round]:
    simulation, plain = begin(pool, (0, 1), copies=2)
    later = simulation.label(plain.available.int().topk(4, dim=1).indices)
    found = (plain, begin(missing_pool, (0, 1))[1], begin(single_pool, (0, 1))[1], later)
    return dict(zip(CASES, found, strict=True))
