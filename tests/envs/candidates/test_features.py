"""What a policy learns about each candidate: ranks, sketches, the state; and features of one's own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from envs.candidates import DEFAULT_FEATURES, FEATURES, STATE, CandidateConfig, Feature, check_features, offer
from envs.candidates.scales import LOG_LIMITS, log_ratio, rank_normalise
from envs.candidates.view import FISHER_SKETCH, GRADIENT_SKETCH, HIDDEN_SKETCH, INPUT_SKETCH
from envs.errors import ConfigError
from policies.selector import Selector, SelectorConfig

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


# Sizes


@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=2, max_size=30))
@checked
def test_log_ratios_keep_the_order_forget_the_unit_and_stay_within_limits(numbers: list[float]) -> None:
    row = torch.tensor(numbers, dtype=torch.float64)[None]
    found = log_ratio(row, row.mean(1, keepdim=True))
    assert bool(((found >= LOG_LIMITS[0]) & (found <= LOG_LIMITS[1])).all())
    assert bool((found.sort(1).values == found.gather(1, row.argsort(1))).all())
    if row.max() > 0:
        torch.testing.assert_close(log_ratio(1000 * row, 1000 * row.mean(1, keepdim=True)), found)


def test_features_are_offered_on_their_own_scales(pool, begin) -> None:
    _, round_ = begin(pool)
    names = ("margin", "log_uncertainty", "density")
    offered = offer(round_, 4, CandidateConfig(per_pick=4), names)
    ranked = offer(round_, 4, CandidateConfig(per_pick=4), ("margin", "density"))
    assert torch.equal(offered.features[..., [0, 2]], ranked.features)
    p = torch.take_along_dim(round_.outputs.probabilities, offered.positions[:, None], 2).sort(1).values
    unsure = 1 - (p[:, -1] - p[:, -2])
    expected = (unsure / unsure.mean(1, keepdim=True) + 1e-4).log()
    torch.testing.assert_close(offered.features[..., 1], expected, atol=1e-5, rtol=1e-5)


# Features


@pytest.mark.parametrize("rule", ["random", "score"])
@pytest.mark.parametrize("which", ["pool", "missing_pool", "single_pool"])
def test_every_feature_computes(rule: str, which: str, begin, request: pytest.FixtureRequest) -> None:
    pool = request.getfixturevalue(which)
    _, round_ = begin(pool, (1, 2))
    offered = offer(round_, 4, CandidateConfig(rule, 4), EVERY)
    assert offered.features.shape == (2, 16, len(EVERY))
    ranked = [i for i, name in enumerate(EVERY) if FEATURES.find(name).ranked]
    assert offered.features[..., ranked].abs().max() <= 1 + 1e-6
    assert offered.gradient.shape == (2, 16, GRADIENT_SKETCH)
    assert offered.hidden.shape == (2, 16, HIDDEN_SKETCH)
    assert offered.fisher.shape == (2, 16, FISHER_SKETCH)
    assert offered.input.shape == (2, 16, INPUT_SKETCH)
    assert offered.state.shape == (2, len(STATE))
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
    state = dict(zip(STATE, offer(round_, 4, CandidateConfig()).state.T, strict=True))
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


# The registries


@pytest.mark.parametrize("record", [*FEATURES.values(), *STATE.values()], ids=lambda record: record.name)
def test_records_are_entered_under_their_names_with_words(record) -> None:
    assert record in (FEATURES.get(record.name), STATE.get(record.name))
    words = record.words if isinstance(record, Feature) else [record.words]
    assert len(set(words)) == len(words) and all(words)
    if isinstance(record, Feature):
        assert record.groups
        assert record.default == (record.name in DEFAULT_FEATURES)


def test_a_feature_of_ones_own_is_offered_and_weighed(pool, begin, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Feature("second_class", lambda v: v.probabilities.sort(1).values[:, -2], ("it has a rival", "it has none"))
    with pytest.raises(ConfigError, match="second_class"):
        SelectorConfig(features=("second_class",))
    monkeypatch.setitem(FEATURES, mine.name, mine)
    selector = Selector(SelectorConfig(features=("second_class",), batch_features=(), initial="zero"))
    selector.weights.data[0, 0] = 1.0
    _, round_ = begin(pool, (0, 1))
    offered = offer(round_, 4, CandidateConfig(per_pick=5), selector.config.features)
    slots = selector.select(offered.observation(), 4)
    rival = round_.outputs_at(offered.positions).probabilities.sort(1).values[:, -2]
    picked = torch.take_along_dim(rival, slots, 1)
    torch.testing.assert_close(picked, rival.topk(4, dim=1).values)
    assert "second_class" not in DEFAULT_FEATURES


def test_a_feature_that_needs_the_score_must_say_so(pool, begin, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Feature("mine", lambda v: -v.scored[0], ("high", "low"))
    monkeypatch.setitem(FEATURES, "mine", mine)
    _, round_ = begin(pool)
    with pytest.raises(RuntimeError, match="needs_score=True"):
        offer(round_, 4, CandidateConfig(), ("mine",))
    monkeypatch.setitem(FEATURES, "mine", dataclasses.replace(mine, needs_score=True))
    offered = offer(round_, 4, CandidateConfig(), ("mine", "score"))
    torch.testing.assert_close(offered.features[..., 0], -offered.features[..., 1])


def test_unknown_names_are_refused_with_the_nearest() -> None:
    check_features(DEFAULT_FEATURES)
    with pytest.raises(ConfigError, match=r"'entropi'.*Did you mean 'entropy'"):
        check_features(("margin", "entropi"))
