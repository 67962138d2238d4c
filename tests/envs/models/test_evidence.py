"""EFDA's fused Dirichlet and difficulty, AMCB's weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.models.contribution import contribution_weights, weights_among_present
from envs.models.evidence import difficulty, expected_probabilities, fuse_evidence, vacuity

checked = settings(deadline=None, max_examples=40)


@st.composite
def evidences(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """Evidence [M, C, R] from none to very much, and weights [M] on the simplex."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m, c, r = draw(st.integers(1, 4)), draw(st.integers(2, 6)), draw(st.integers(1, 5))
    evidence = rng.exponential(draw(st.sampled_from([0.01, 1.0, 100.0])), (m, c, r))
    evidence[rng.random((m, c, r)) < 0.2] = 0.0
    return torch.from_numpy(evidence), torch.from_numpy(rng.dirichlet(np.ones(m)))


@given(evidences(), st.data())
@checked
def test_all_weight_on_one_modality_is_that_modality(case, data) -> None:
    evidence, weights = case
    k = data.draw(st.integers(0, len(weights) - 1))
    one = torch.zeros_like(weights)
    one[k] = 1.0
    torch.testing.assert_close(fuse_evidence(evidence, one), 1.0 + evidence[k])


@given(evidences())
@checked
def test_fused_alpha_lies_between_one_and_the_weighted_alphas(case) -> None:
    evidence, weights = case
    fused = fuse_evidence(evidence, weights)
    upper = 1.0 + sum(w * ((1.0 + e) - 1.0) for w, e in zip(weights, evidence, strict=True))
    assert (fused >= 1.0).all()
    assert (fused <= upper * (1 + 1e-12)).all()
    assert (fused <= 1.0 + evidence.amax(0) + 1e-9).all()


@given(evidences())
@checked
def test_weights_per_row_agree_with_weights_for_all_rows(case) -> None:
    evidence, weights = case
    batched = evidence[None].expand(2, -1, -1, -1)
    per_row = weights[None, :, None].expand(2, -1, evidence.shape[-1])
    torch.testing.assert_close(fuse_evidence(batched, weights[None].expand(2, -1)), fuse_evidence(batched, per_row))


@given(evidences(), st.floats(1.5, 50.0))
@checked
def test_more_evidence_of_the_same_kind_is_less_difficult(case, factor: float) -> None:
    evidence = case[0] + 0.1
    assert (difficulty(1.0 + factor * evidence) < difficulty(1.0 + evidence)).all()
    assert (vacuity(1.0 + factor * evidence) < vacuity(1.0 + evidence)).all()


@given(evidences())
@checked
def test_difficulty_is_the_mean_of_the_dirichlet_variances(case) -> None:
    alpha = 1.0 + case[0][0].numpy()
    expected = np.zeros(alpha.shape[1])
    for r in range(alpha.shape[1]):
        total = alpha[:, r].sum()
        expected[r] = np.mean([a * (total - a) / (total**2 * (total + 1)) for a in alpha[:, r]])
    np.testing.assert_allclose(difficulty(torch.from_numpy(alpha)), expected, rtol=1e-8)


@pytest.mark.parametrize("alpha", [[1.0, 1.0, 1.0], [5.0, 1.5, 1.0, 2.0], [40.0, 3.0]])
def test_difficulty_and_mean_agree_with_sampling(alpha: list[float], rng: np.random.Generator) -> None:
    draws = rng.dirichlet(alpha, 200_000)
    column = torch.tensor(alpha, dtype=torch.float64)[:, None]
    assert difficulty(column).item() == pytest.approx(draws.var(0).mean(), rel=0.02)
    np.testing.assert_allclose(expected_probabilities(column)[:, 0], draws.mean(0), atol=0.003)


@given(evidences())
@checked
def test_vacuity_is_a_share_and_one_without_evidence(case) -> None:
    values = vacuity(1.0 + case[0])
    assert ((values > 0) & (values <= 1)).all()
    assert (vacuity(torch.ones(3, 4)) == 1).all()


deltas = st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=5)


@given(deltas, st.floats(0.01, 5.0), st.floats(0.0, 0.99))
@checked
def test_contribution_weights_are_on_the_simplex_above_the_floor(delta, temperature, floor) -> None:
    w = contribution_weights(torch.tensor(delta, dtype=torch.float64), temperature, floor)
    assert w.sum().item() == pytest.approx(1.0)
    # A floor that the simplex has no room for means: all alike.
    assert (w >= min(floor, 1.0 / len(delta)) - 1e-12).all()
    if floor * len(delta) >= 1.0:
        np.testing.assert_allclose(w, 1.0 / len(delta))


@given(deltas, st.randoms(use_true_random=False))
@checked
def test_contribution_weights_follow_the_modalities_when_reordered(delta, random) -> None:
    order = list(range(len(delta)))
    random.shuffle(order)
    t = torch.tensor(delta, dtype=torch.float64)
    torch.testing.assert_close(contribution_weights(t, 0.1, 0.05)[order], contribution_weights(t[order], 0.1, 0.05))


def test_the_better_modality_weighs_more_and_temperature_evens_out() -> None:
    delta = torch.tensor([[-0.3, 0.0, -0.1]])
    sharp, soft = contribution_weights(delta, 0.05, 0.0)[0], contribution_weights(delta, 100.0, 0.0)[0]
    assert sharp.argsort().tolist() == [0, 2, 1]
    assert sharp[1] > 0.8
    assert (soft - 1 / 3).abs().max() < 0.01


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 6))
@checked
def test_weights_among_present(seed: int, modalities: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    w = torch.from_numpy(rng.dirichlet(np.ones(modalities), 3))
    present = torch.from_numpy(rng.random((3, modalities, rows)) < 0.6)
    present[:, 0] |= ~present.any(1)
    per_row = weights_among_present(w, present)
    assert per_row.shape == present.shape
    np.testing.assert_allclose(per_row.sum(1), 1.0)
    assert (per_row[~present] == 0).all()
    full = present.all(1)
    expected = w[..., None].expand_as(per_row)
    torch.testing.assert_close(per_row.mT[full], expected.mT[full])
    # Ratios between present modalities stay.
    for e in range(3):
        for r in range(rows):
            on = present[e, :, r]
            torch.testing.assert_close(per_row[e, on, r], w[e, on] / w[e, on].sum())
