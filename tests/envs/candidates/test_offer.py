"""Which samples are offered to a policy: the cap, copies, the rule, and the published ablations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.candidates import STATE, CandidateConfig, offer
from envs.candidates.published_score import published_score
from envs.errors import ConfigError


@pytest.mark.parametrize("rule", ["random", "score"])
@pytest.mark.parametrize("per_pick", [3, 40])  # below and above the pool
def test_offered_are_unlabelled_distinct_and_padded(rule: str, per_pick: int, pool, begin) -> None:
    simulation, _ = begin(pool, (0, 5), copies=2)
    picks = simulation.round.available.int().topk(4, dim=1).indices
    round_ = simulation.label(picks)
    offered = offer(round_, 4, CandidateConfig(rule, per_pick))
    slots = 4 * per_pick
    expected = min(slots, int(round_.available[0].sum()))
    assert offered.positions.shape == offered.valid.shape == (4, slots)
    assert offered.valid.sum(1).tolist() == [expected] * 4
    assert offered.valid[:, :expected].all()
    for e in range(4):
        mine = offered.positions[e, offered.valid[e]].tolist()
        assert len(set(mine)) == expected
        assert set(mine).isdisjoint(round_.labelled[e].tolist())
    empty = ~offered.valid
    for name in ("features", "gradient", "hidden", "labelled_distance", "predicted", "difficulty"):
        assert (getattr(offered, name)[empty] == 0).all()


def test_copies_are_offered_the_same_until_their_picks_differ(pool, begin) -> None:
    simulation, round_ = begin(pool, (3, 4), copies=3)
    config = CandidateConfig(per_pick=5)
    offered = offer(round_, 4, config)
    for low in (0, 3):
        for other in (low + 1, low + 2):
            assert torch.equal(offered.positions[low], offered.positions[other])
            torch.testing.assert_close(offered.features[low], offered.features[other])
    assert not torch.equal(offered.positions[0], offered.positions[3])
    # The copies pick differently; what is still unlabelled in both is offered to both.
    slots = torch.arange(24).reshape(6, 4) % 20
    round_ = simulation.label(torch.take_along_dim(offered.positions, slots, 1))
    one, two = (set(row.tolist()) for row in offer(round_, 4, config).positions[:2])
    assert len(one & two) >= 12
    assert one != set(offered.positions[0].tolist())  # and another draw in the next round


def test_candidates_by_score_are_the_largest(pool, begin) -> None:
    _, round_ = begin(pool)
    offered = offer(round_, 2, CandidateConfig("score", 5, score_beta=0.5))
    q = published_score(round_, 2, 0.5).q.masked_fill(~round_.available, -torch.inf)[0]
    assert set(offered.positions[0].tolist()) == set(q.topk(10).indices.tolist())


def test_impossible_rules_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'scores'.*Did you mean 'score'"):
        CandidateConfig(rule="scores")
    with pytest.raises(ConfigError, match="per_pick is 0"):
        CandidateConfig(per_pick=0)


# The published ablations


@pytest.mark.parametrize("which", ["pool", "missing_pool"])
def test_without_amcb_all_modalities_count_alike(which: str, begin, request) -> None:
    simulation, _ = begin(request.getfixturevalue(which), (0, 3))
    round_ = simulation.label(simulation.round.available.int().topk(4, dim=1).indices)
    assert (round_.weights - round_.weights[:, :1]).abs().max() > 1e-3
    features = ("weighted_uncertainty", "mean_uncertainty")
    on, off = (offer(round_, 4, CandidateConfig(amcb=amcb), features) for amcb in (True, False))
    assert not torch.allclose(on.features[..., 0], on.features[..., 1])
    torch.testing.assert_close(off.features[..., 0], off.features[..., 1], atol=1e-3, rtol=0)
    delta = [i for i, name in enumerate(STATE) if "delta" in name]
    assert on.state[:, delta].abs().max() > 0
    assert off.state[:, delta].abs().max() == 0


def test_without_efda_uncertainty_is_an_entropy(pool, begin) -> None:
    round_ = begin(pool, (0, 3))[1]
    offered = offer(round_, 4, CandidateConfig(per_pick=10, efda=False), ("mean_uncertainty",))
    assert offered.valid.all()  # no padding
    outputs = round_.outputs_at(offered.positions)
    p = ((outputs.evidence + 1) / (outputs.evidence + 1).sum(2, keepdim=True)).double().numpy()
    entropy = -(p * np.log(p)).sum(2)  # [E, M, K]
    np.testing.assert_allclose(offered.modality_uncertainty.numpy(), entropy, atol=1e-5)
    mixed = np.einsum("em,emck->eck", round_.weights.double().numpy(), p)
    np.testing.assert_allclose(offered.difficulty.numpy(), -(mixed * np.log(mixed)).sum(1), atol=1e-5)
    scores = [published_score(round_, 4, 0.0, efda).q for efda in (True, False)]
    assert not torch.allclose(*scores)
