"""Records of runs: only pairs are compared, and what was kept in parts is one again."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from envs.errors import RLMBAError
from evaluation.runs import Runs, check_pairing
from tests.support.fabricated import make_played, make_pool


@pytest.fixture
def runs() -> dict[str, Runs]:
    """Two strategies on the same starts."""
    return make_played(make_pool(), {"random": 0.0, "margin": 0.1}).runs


@pytest.mark.parametrize(("field", "says"), [("starts", "initial labels"), ("models", "round-zero model")])
def test_unpaired_runs_are_refused(runs: dict[str, Runs], field: str, says: str) -> None:
    check_pairing(runs)
    changed = getattr(runs["margin"], field).copy()
    changed[1] = "0" * 16
    tampered = runs | {"margin": dataclasses.replace(runs["margin"], **{field: changed})}
    with pytest.raises(RLMBAError, match=f"Unpaired.*{says}.*seed 10001"):
        check_pairing(tampered)


def test_other_seeds_are_refused(runs: dict[str, Runs]) -> None:
    shifted = dataclasses.replace(runs["margin"], seeds=runs["margin"].seeds + 1)
    with pytest.raises(RLMBAError, match="Unpaired"):
        check_pairing(runs | {"margin": shifted})
    fewer = Runs(*(getattr(runs["margin"], f.name)[:2] for f in dataclasses.fields(Runs)))
    with pytest.raises(RLMBAError, match=r"8 seeds .* 2"):
        check_pairing(runs | {"margin": fewer})


def test_joined_runs_have_one_layout(runs: dict[str, Runs]) -> None:
    """Else sums over kept and over fresh runs may differ in their last digit."""
    other = dataclasses.replace(runs["random"], shapley=np.asfortranarray(runs["random"].shapley))
    assert Runs.join([other, other]).shapley.flags.c_contiguous


def test_parts_follow_one_another(runs: dict[str, Runs]) -> None:
    whole = runs["random"]
    parts = [Runs(*(getattr(whole, f.name)[at] for f in dataclasses.fields(Runs))) for at in (slice(2), slice(2, None))]
    joined = Runs.join(parts)
    for field in dataclasses.fields(Runs):
        np.testing.assert_array_equal(getattr(joined, field.name), getattr(whole, field.name))
