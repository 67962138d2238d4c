"""D^2 sampling over factorised rows, against rows that are written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import envs.kmeanspp
from envs.kmeanspp import d_squared_sampling, draw_proportional, inner_products, k_means, squared_norms

checked = settings(deadline=None, max_examples=40)


def random_factors(seed: int, count: int, episodes: int = 2, rows: int = 12) -> list[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(seed)
    shapes = [(3 + i, 5 - i) for i in range(count)]
    return [
        (torch.from_numpy(rng.normal(size=(episodes, a, rows))),
         torch.from_numpy(rng.normal(size=(episodes, z, rows))))
        for a, z in shapes
    ]  # fmt: skip


def written_out(factors: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The rows themselves, [E, R, sum of A Z]."""
    return torch.cat([torch.einsum("ear,ezr->eraz", a, z).flatten(2) for a, z in factors], 2)


def reference_sampling(rows: np.ndarray, available: np.ndarray, uniforms: np.ndarray, first: int | None) -> list[int]:
    """One episode, row by row: slow and plain."""
    picks: list[int] = []
    for u in uniforms:
        if not picks and first is not None:
            picks.append(first)
            continue
        weights = []
        for r in range(len(rows)):
            if not available[r] or r in picks:
                weights.append(0.0)
            elif not picks:
                weights.append(1.0)
            else:
                weights.append(min(float(((rows[r] - rows[p]) ** 2).sum()) for p in picks))
        target, passed = u * sum(weights), 0.0
        for r, w in enumerate(weights):
            passed += w
            if w > 0 and passed > target:
                picks.append(r)
                break
    return picks


@given(st.integers(0, 10_000), st.integers(1, 3))
@checked
def test_factorised_products_are_those_of_the_rows(seed: int, count: int) -> None:
    factors = random_factors(seed, count)
    rows = written_out(factors)
    torch.testing.assert_close(squared_norms(factors), rows.square().sum(2))
    index = torch.tensor([seed % 12, (seed + 5) % 12])
    chosen = rows[torch.arange(2), index]
    torch.testing.assert_close(inner_products(factors, index), torch.einsum("erd,ed->er", rows, chosen))


@given(st.integers(0, 10_000), st.integers(1, 3), st.booleans())
@checked
def test_picks_are_those_of_a_slow_reference(seed: int, count: int, given_first: bool) -> None:
    factors = random_factors(seed, count)
    rng = np.random.default_rng(seed + 1)
    available = rng.random((2, 12)) < 0.7
    available[:, :5] = True
    uniforms = rng.random((2, 5))
    first = torch.tensor([0, 3]) if given_first else None
    picks, nearest = d_squared_sampling(factors, torch.from_numpy(available), torch.from_numpy(uniforms), first)
    rows = written_out(factors).numpy()
    for e in range(2):
        expected = reference_sampling(rows[e], available[e], uniforms[e], None if first is None else int(first[e]))
        assert picks[e].tolist() == expected
        distance = ((rows[e][:, None] - rows[e][expected]) ** 2).sum(2).min(1)
        np.testing.assert_allclose(nearest[e], distance, atol=1e-9)


@given(st.integers(0, 10_000), st.sampled_from(["random", "duplicates", "all equal", "all zero"]))
@checked
def test_picks_are_distinct_and_available(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    points = {
        "random": rng.normal(size=(3, 4, 10)),
        "duplicates": rng.normal(size=(3, 4, 2))[:, :, rng.integers(0, 2, 10)],
        "all equal": np.repeat(rng.normal(size=(3, 4, 1)), 10, 2),
        "all zero": np.zeros((3, 4, 10)),
    }[kind]
    points = torch.from_numpy(points.astype(np.float32))
    available = torch.from_numpy(rng.random((3, 10)) < 0.5)
    available[:, :4] = True
    count = int(available.sum(1).min())  # the whole of what is available, for one episode
    picks, _ = d_squared_sampling([(torch.ones(3, 1, 10), points)], available, torch.from_numpy(rng.random((3, count))))
    assert all(len(set(row)) == count for row in picks.tolist())
    assert available.gather(1, picks).all()


@given(st.integers(0, 10_000), st.integers(1, 2))
@checked
def test_gradient_embeddings_need_not_be_written_out(seed: int, count: int) -> None:
    """Same draws, same picks: p - onehot times z as factors (one as in BADGE, two as in BMMAL) or as one long row."""
    rng = np.random.default_rng(seed)
    factors = []
    for _ in range(count):
        p = torch.from_numpy(rng.dirichlet(np.ones(4), (2, 30))).mT  # [2, 4, 30]
        error = p - torch.zeros_like(p).scatter_(1, p.argmax(1, keepdim=True), 1.0)
        factors.append((error, torch.from_numpy(np.maximum(rng.normal(size=(2, 6, 30)), 0.0))))
    rows = [(torch.ones(2, 1, 30, dtype=torch.float64), written_out(factors).mT)]
    available = torch.from_numpy(rng.random((2, 30)) < 0.8)
    available[:, :8] = True
    uniforms = torch.from_numpy(rng.random((2, 8)))
    firsts = [squared_norms(f).masked_fill(~available, -1.0).argmax(1) for f in (factors, rows)]
    assert torch.equal(*firsts)
    picks, nearest = d_squared_sampling(factors, available, uniforms, firsts[0])
    written, distance = d_squared_sampling(rows, available, uniforms, firsts[1])
    assert torch.equal(picks, written)
    torch.testing.assert_close(nearest, distance, atol=1e-9, rtol=1e-9)


def test_distances_decide_how_often_a_row_is_drawn(rng: np.random.Generator) -> None:
    """Second pick after row 0 at the origin: probabilities proportional to 1, 4 and 9."""
    n = 4000
    points = torch.tensor([[0.0, 1.0, 2.0, 3.0]])[None].expand(n, 1, 4)
    picks, _ = d_squared_sampling(
        [(torch.ones(n, 1, 4), points)],
        torch.ones(n, 4, dtype=torch.bool),
        torch.from_numpy(rng.random((n, 2))),
        torch.zeros(n, dtype=torch.int64),
    )
    share = np.bincount(picks[:, 1], minlength=4) / n
    np.testing.assert_allclose(share, np.array([0, 1, 4, 9]) / 14, atol=0.03)


def test_mass_decides_how_often_a_row_is_drawn(rng: np.random.Generator) -> None:
    """First pick: by mass alone, 1, 2, 3 and 4. Second pick after row 0: by mass times squared distance."""
    n = 4000
    points = torch.tensor([[0.0, 1.0, 2.0, 3.0]])[None].expand(n, 1, 4)
    rows = [(torch.ones(n, 1, 4), points)]
    everything, mass = torch.ones(n, 4, dtype=torch.bool), torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(n, 4)
    uniforms = torch.from_numpy(rng.random((n, 2)))
    first, _ = d_squared_sampling(rows, everything, uniforms, mass=mass)
    np.testing.assert_allclose(np.bincount(first[:, 0], minlength=4) / n, np.arange(1, 5) / 10, atol=0.03)
    second, _ = d_squared_sampling(rows, everything, uniforms, torch.zeros(n, dtype=torch.int64), mass)
    np.testing.assert_allclose(np.bincount(second[:, 1], minlength=4) / n, np.array([0, 2, 12, 36]) / 50, atol=0.03)


edge = st.sampled_from([0.0, np.nextafter(1.0, 0.0), 1.0 - 1e-9, 0.5])


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-30, 1e30)), min_size=1, max_size=12),
    st.one_of(edge, st.floats(0.0, 1.0, exclude_max=True)),
    st.sampled_from([torch.float32, torch.float64]),
)
@checked
def test_a_weight_of_zero_is_never_drawn(weights: list[float], uniform: float, dtype: torch.dtype) -> None:
    if not any(weights):
        weights = [*weights, 1.0]
    w = torch.tensor([weights], dtype=dtype)
    index = draw_proportional(w, torch.tensor([uniform], dtype=torch.float64)).item()
    assert 0 <= index < len(weights)
    assert w[0, index] > 0


@pytest.mark.parametrize(("uniform", "expected"), [(0.0, 1), (0.24, 1), (0.26, 2), (0.74, 2), (0.76, 4), (0.999, 4)])
def test_draw_proportional_inverts_the_cumulative_weights(uniform: float, expected: int) -> None:
    w = torch.tensor([[0.0, 1.0, 2.0, 0.0, 1.0, 0.0]])
    assert draw_proportional(w, torch.tensor([uniform])).item() == expected


# k-means


def reference_k_means(points: np.ndarray, mass: np.ndarray, seeds: list[int], iterations: int) -> np.ndarray:
    """Centroids [k, H] of one episode's points [P, H], row by row."""
    centroids = points[seeds].copy()
    for _ in range(iterations):
        own = ((points[:, None] - centroids) ** 2).sum(2).argmin(1)
        for j in range(len(centroids)):
            members = (own == j) & (mass > 0)
            if members.any():
                centroids[j] = np.average(points[members], 0, mass[members])
    return centroids


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 4), st.sampled_from([2**24, 20, 1]), st.booleans())
@checked
def test_k_means_is_that_of_a_slow_reference(seed: int, k: int, iterations: int, block: int, weighed: bool) -> None:
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(size=(2, 3, 25)))
    available = torch.from_numpy(rng.random((2, 25)) < 0.6)
    available[:, :k] = True
    uniforms = torch.from_numpy(rng.random((2, k)))
    mass = torch.from_numpy(rng.random((2, 25)) ** 3 + 1e-7) if weighed else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envs.kmeanspp, "BLOCK", block)
        centroids, squared, own = k_means(points, available, uniforms, iterations, mass)
    seeds, _ = d_squared_sampling([(torch.ones(2, 1, 25), points)], available, uniforms, mass=mass)
    counted = (available if mass is None else available * mass).double().numpy()
    for e in range(2):
        rows = points[e].T.numpy()
        expected = reference_k_means(rows, counted[e], seeds[e].tolist(), iterations)
        np.testing.assert_allclose(centroids[e].T, expected, atol=1e-9)
        distance = ((rows[:, None] - expected) ** 2).sum(2)
        np.testing.assert_allclose(squared[e], distance.min(1), atol=1e-9)
        np.testing.assert_array_equal(own[e], distance.argmin(1))


def test_k_means_leaves_an_empty_cluster_where_it_is() -> None:
    """Three seeds among two distinct points: the third centroid has no member and stays finite."""
    points = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    centroids, squared, _ = k_means(points, torch.ones(1, 4, dtype=torch.bool), torch.rand(1, 3), 5)
    assert centroids.isfinite().all()
    assert set(centroids.flatten().tolist()) == {0.0, 1.0}
    assert not squared.any()
