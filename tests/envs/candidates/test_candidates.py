"""What is offered to a policy: positions, ranks, sketches, and the published score."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from envs.candidates.offer import (
    DEFAULT_FEATURES,
    FEATURES,
    GRADIENT_SKETCH,
    HIDDEN_SKETCH,
    STATE_NAMES,
    CandidateConfig,
    check_features,
    offer,
    rank_normalise,
)
from envs.candidates.published_score import centroid_distance, published_score
from envs.errors import ConfigError

checked = settings(deadline=None, max_examples=40)
values = st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=30)
EVERY = tuple(FEATURES)


# Ranks


@given(values, st.integers(1, 6))
@checked
def test_ranks_are_scipys_with_ties_averaged(numbers: list[float], coarse: int) -> None:
    row = np.round(np.float32(numbers) / coarse) * coarse  # coarse: many ties
    tensor = torch.from_numpy(row)[None, None].expand(2, 3, -1)
    expected = 2 * (rankdata(row) - 1) / (len(row) - 1) - 1
    np.testing.assert_allclose(rank_normalise(tensor)[1, 2], expected, atol=1e-5)


@given(values)
@checked
def test_ranks_survive_monotone_transforms_and_flip_with_the_sign(numbers: list[float]) -> None:
    row = torch.tensor(numbers, dtype=torch.float64).round(decimals=2).float()[None]
    ranks = rank_normalise(row)
    torch.testing.assert_close(rank_normalise(row.double().mul(3).add(1).float()), ranks)
    torch.testing.assert_close(rank_normalise(-row), -ranks)
    assert ranks.abs().max() <= 1 + 1e-6
    assert abs(ranks.mean()) < 1e-5


def test_rows_with_and_without_ties_do_not_mix() -> None:
    rows = torch.tensor([[3.0, 1.0, 2.0], [5.0, 5.0, 5.0], [1.0, 1.0, 0.0]])
    torch.testing.assert_close(
        rank_normalise(rows), torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.5, -1.0]])
    )
    assert rank_normalise(torch.tensor([[7.0]])).tolist() == [[0.0]]


# Offers


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


@pytest.mark.parametrize("rule", ["random", "score"])
@pytest.mark.parametrize("which", ["pool", "missing_pool", "single_pool"])
def test_every_feature_computes(rule: str, which: str, begin, request: pytest.FixtureRequest) -> None:
    pool = request.getfixturevalue(which)
    _, round_ = begin(pool, (1, 2))
    offered = offer(round_, 4, CandidateConfig(rule, 4), EVERY)
    assert offered.features.shape == (2, 16, len(EVERY))
    assert offered.features.abs().max() <= 1 + 1e-6
    assert offered.gradient.shape == (2, 16, GRADIENT_SKETCH)
    assert offered.hidden.shape == (2, 16, HIDDEN_SKETCH)
    assert offered.state.shape == (2, len(STATE_NAMES))
    assert offered.modality_uncertainty.shape == (2, len(pool.modalities), 16)
    for field in dataclasses.fields(offered):
        assert getattr(offered, field.name).double().isfinite().all(), field.name
    for name, value in offered.observation().items():
        assert value.double().isfinite().all(), name
    # Ranks mean something: features take many values; only a single modality never disagrees with itself.
    alone = len(pool.modalities) == 1
    # On every processor some tie: rarity has no more values than classes, agreement than neighbours, their loss than
    # sets of neighbours (5 here; the order of a sum may part equal ones); a modality alone disagrees with none.
    least = {"rarity": 1, "neighbour_agreement": 2, "neighbour_loss": 4, "disagreement": 6}
    for i, name in enumerate(EVERY):
        distinct = offered.features[0, :, i].unique().numel()
        if name == "disagreement" and alone:
            assert distinct == 1
        else:
            assert distinct >= least.get(name, 8), name


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


def test_features_mean_what_their_names_say(pool, begin) -> None:
    _, round_ = begin(pool)
    names = ("margin", "entropy", "difficulty", "vacuity", "density", "labelled_distance", "rarity")
    offered = offer(round_, 4, CandidateConfig(), names)
    valid = offered.valid[0]
    at = offered.positions[:, valid]
    column = dict(zip(names, offered.features[0, valid].T.numpy(), strict=True))
    out = round_.outputs_at(at)
    p = out.probabilities[0].numpy()
    top = np.sort(p, 0)
    alpha = round_.fused(out)[0].numpy()
    total = alpha.sum(0)
    hidden = round_.outputs.hidden[0, :, :-1]
    unit = (hidden / hidden.norm(dim=1, keepdim=True)).flatten(0, 1).T  # [P, M (H - 1)]
    distance = torch.cdist(unit[at[0]], unit[round_.labelled[0]]).amin(1).numpy()
    counts = np.bincount(round_.labels[0], minlength=4)
    assert offered.predicted[0, valid].tolist() == p.argmax(0).tolist()
    for name, expected in {
        "margin": top[-2] - top[-1],
        "entropy": -(p * np.log(p)).sum(0),
        "difficulty": (alpha * (total - alpha) / (total**2 * (total + 1))).mean(0),
        "vacuity": 4 / total,
        "density": round_.density[0, at[0]],
        "rarity": -counts[p.argmax(0)],
    }.items():
        assert spearmanr(column[name], expected).statistic > 0.999, name
    # This one is computed from the sketch.
    assert spearmanr(column["labelled_distance"], distance).statistic > 0.8


def test_the_state_reports_the_round(pool, begin) -> None:
    simulation, round_ = begin(pool, (0, 1))
    state = dict(zip(STATE_NAMES, offer(round_, 4, CandidateConfig()).state.T, strict=True))
    assert state["progress"].tolist() == [0.0, 0.0]
    torch.testing.assert_close(state["validation_accuracy"], round_.validation.accuracy)
    torch.testing.assert_close(state["delta_min"], round_.validation.delta.amin(1))
    for _ in range(2):
        round_ = simulation.label(round_.available.int().topk(4, dim=1).indices)
    state = offer(round_, 4, CandidateConfig()).state
    assert state[:, 0].tolist() == [1.0, 1.0]  # the last round in which somebody picks


# Sketches


def test_gradient_sketches_estimate_inner_products(pool, begin) -> None:
    _, round_ = begin(pool)
    offered = offer(round_, 4, CandidateConfig())
    at = offered.positions[:, offered.valid[0]]
    out = round_.outputs_at(at)
    p = out.probabilities
    error = p - torch.zeros_like(p).scatter_(1, p.argmax(1, keepdim=True), 1.0)
    rows = torch.einsum("eck,ehk->ekch", error, out.embedding()).flatten(2)[0]
    sketch = offered.gradient[0, offered.valid[0]]
    exact, estimate = rows @ rows.T, sketch @ sketch.T
    pairs = torch.triu_indices(len(rows), len(rows), 1)
    pair_correlation = np.corrcoef(exact[pairs[0], pairs[1]], estimate[pairs[0], pairs[1]])[0, 1]
    assert pair_correlation > 0.9
    slope = (exact * estimate).sum() / exact.square().sum()
    assert 0.8 < slope < 1.25  # scaled alike, not merely correlated


def test_hidden_sketches_estimate_inner_products(missing_pool, begin) -> None:
    _, round_ = begin(missing_pool)
    offered = offer(round_, 4, CandidateConfig())
    valid = offered.valid[0]
    hidden = round_.outputs_at(offered.positions[:, valid]).hidden[0, :, :-1]  # without the constant unit
    rows = (hidden / hidden.norm(dim=1, keepdim=True).clamp_min(1e-6)).flatten(0, 1).T
    sketch = offered.hidden[0, valid]
    exact, estimate = rows @ rows.T, sketch @ sketch.T
    pairs = torch.triu_indices(len(rows), len(rows), 1)
    assert np.corrcoef(exact[pairs[0], pairs[1]], estimate[pairs[0], pairs[1]])[0, 1] > 0.8
    assert 0.8 < (exact * estimate).sum() / exact.square().sum() < 1.25


# The published score


@pytest.mark.parametrize("which", ["pool", "missing_pool", "single_pool"])
def test_the_score_depends_on_available_rows_alone(which: str, begin, request, rng) -> None:
    _, round_ = begin(request.getfixturevalue(which), (0, 1))
    rows = round_.model.rows
    x = rows.x.clone()
    for s in range(2):
        taken = round_.labelled[s]
        noise = torch.from_numpy(rng.normal(0, 20, (*x.shape[1:3], len(taken))).astype(np.float32))
        x[s][:, :, taken] += noise
    model = dataclasses.replace(round_.model, rows=dataclasses.replace(rows, x=x))
    moved = dataclasses.replace(round_, model=model)
    assert (moved.outputs.logits - round_.outputs.logits).abs().max() > 1.0
    one, two = published_score(round_, 4, 1.0), published_score(moved, 4, 1.0)
    open_ = round_.available
    torch.testing.assert_close(one.q[open_], two.q[open_])
    torch.testing.assert_close(one.diversity[open_], two.diversity[open_])


def test_the_score_weighs_its_terms(pool, begin) -> None:
    _, round_ = begin(pool)
    open_ = round_.available
    without, with_, twice = (published_score(round_, 4, beta) for beta in (0.0, 1.0, 2.0))
    torch.testing.assert_close(twice.q - with_.q, with_.q - without.q)
    term = (with_.q - without.q)[open_]
    assert term.min() == pytest.approx(0.0, abs=1e-6)
    assert term.max() == pytest.approx(1.0, abs=1e-6)
    assert spearmanr(term, with_.diversity[open_]).statistic > 0.999
    assert without.q[open_].min() >= 0
    assert without.q[open_].max() <= 1 + 1e-6  # the weights sum to 1


def test_candidates_by_score_are_the_largest(pool, begin) -> None:
    _, round_ = begin(pool)
    offered = offer(round_, 2, CandidateConfig("score", 5, score_beta=0.5))
    q = published_score(round_, 2, 0.5).q.masked_fill(~round_.available, -torch.inf)[0]
    assert set(offered.positions[0].tolist()) == set(q.topk(10).indices.tolist())


def test_a_centroid_per_point_leaves_no_distance(rng: np.random.Generator) -> None:
    points = torch.from_numpy(rng.normal(size=(2, 5, 9)))
    uniforms = torch.from_numpy(rng.random((2, 9)))
    everything = torch.ones(2, 9, dtype=torch.bool)
    assert centroid_distance(points, everything, 9, uniforms).max() < 1e-6
    assert centroid_distance(points, everything, 3, uniforms[:, :3]).max() > 0.1


def test_centroids_find_separate_clusters(rng: np.random.Generator) -> None:
    centres = 20 * np.eye(3, 5)
    points = np.repeat(centres, 10, 0) + rng.normal(0, 0.1, (30, 5))
    tensor = torch.from_numpy(points.T[None])
    distance = centroid_distance(tensor, torch.ones(1, 30, dtype=torch.bool), 3, torch.rand(1, 3))
    means = points.reshape(3, 10, 5).mean(1).repeat(10, 0)
    np.testing.assert_allclose(distance[0], np.linalg.norm(points - means, axis=1), atol=1e-6)


# Mistakes


def test_unknown_names_are_refused_with_the_nearest() -> None:
    check_features(DEFAULT_FEATURES)
    with pytest.raises(ConfigError, match=r"'entropi'.*Did you mean 'entropy'"):
        check_features(("margin", "entropi"))
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
    delta = [i for i, name in enumerate(STATE_NAMES) if "delta" in name]
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
