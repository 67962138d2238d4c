"""The gain in Fisher information, by its definition on the rows themselves and not on what an observation carries."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from envs.candidates import CandidateConfig, offer
from envs.candidates.scales import log_ratio
from envs.candidates.view import FISHER_SKETCH, _leading_directions
from envs.models.frozen.trainer import FrozenConfig
from envs.round import Round
from envs.simulation import ProtocolConfig
from envs.source import Source
from policies.batch_features import BatchAware

PICKS = [3, 0, 17, 40]


def trace_falls(round_: Round, positions: Tensor, batch_size: int, picks: list[int]) -> Tensor:
    """Fall of trace(M^-1 F) by each candidate after these picks, every inverse from scratch, [K]."""
    v = round_.outputs_at(positions[None]).fisher_embedding(torch.float64)[0]  # [D, K]
    labelled = round_.outputs_at(round_.labelled[:1]).fisher_embedding(torch.float64)[0]
    total = labelled.shape[1] + batch_size
    m = torch.eye(len(v), dtype=v.dtype) + labelled @ labelled.T / total
    m += batch_size / total * v[:, picks] @ v[:, picks].T
    information = v @ v.T / v.shape[1]
    before = torch.trace(torch.linalg.solve(m, information))
    after = [
        torch.trace(torch.linalg.solve(m + batch_size / total * torch.outer(x, x), information)) for x in v.T.unbind(0)
    ]
    return before - torch.stack(after)


@pytest.mark.parametrize(("modalities", "tolerance"), [(2, 0.02), (4, 0.1)])  # of 4 a little lies in other directions
def test_the_gain_is_the_fall_of_the_trace(modalities: int, tolerance: float) -> None:
    protocol = ProtocolConfig(initial_labels=20, batch_size=5, rounds=2)
    source = Source(f"synthetic:samples=600,modalities={modalities},seed=3", FrozenConfig(), protocol)
    round_ = source.simulation.reset([source.start(0)])
    offered = offer(round_, 5, CandidateConfig(per_pick=12))
    assert (round_.outputs.embedding().shape[1] > FISHER_SKETCH) == (modalities == 4)
    aware = BatchAware(offered.observation(), ("fisher_gain",))
    first = trace_falls(round_, offered.positions[0], 5, []).mean()
    for j in range(len(PICKS)):
        falls = trace_falls(round_, offered.positions[0], 5, PICKS[:j])
        away = [k for k in range(60) if k not in PICKS[:j]]
        found = aware.current()[0, away, 0].double()
        torch.testing.assert_close(found, log_ratio(falls, first)[away], atol=tolerance, rtol=0.0)
        aware.add(torch.tensor([PICKS[j]]))


def test_where_every_candidate_is_sure_the_gains_are_finite() -> None:
    observation = {"fisher": torch.zeros(2, 9, 4), "valid": torch.ones(2, 9, dtype=torch.int8)}
    aware = BatchAware(observation, ("fisher_gain",))
    assert bool(torch.isfinite(aware.current()).all())
    aware.add(torch.tensor([0, 1]))
    assert bool(torch.isfinite(aware.current()).all())


def test_a_model_that_is_sure_of_everything_leaves_nothing_to_follow() -> None:
    gram = torch.zeros(4, 96, 96)
    gram[1] = 1e-24 * torch.eye(96)
    gram[2] = torch.ones(96, 96)
    held = torch.linalg.qr(torch.randn(96, 30, generator=torch.Generator().manual_seed(0))).Q
    gram[3] = held @ torch.diag(torch.logspace(0, -4, 30)) @ held.T
    directions = _leading_directions(gram, FISHER_SKETCH)
    assert bool(torch.isfinite(directions).all())
    identity = torch.eye(FISHER_SKETCH)
    torch.testing.assert_close(directions[1].T @ directions[1], identity, atol=1e-3, rtol=0.0)
    along = directions[2].T @ torch.full((96, 1), 96**-0.5)
    assert float(along.norm()) == pytest.approx(1.0, abs=1e-3)
    lengths = (directions[3].T @ held).norm(dim=0)
    torch.testing.assert_close(lengths, torch.ones(30), atol=2e-2, rtol=0.0)
