"""Preparation: what is fitted, on which rows, and what the task model gets."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch

from envs.models.frozen.preparation import BLOCK, CLIP, prepare
from envs.pools import Pool

FIT, OTHER = np.arange(0, 60), np.arange(60, 90)


def make(x: np.ndarray, y: np.ndarray | None = None, present: np.ndarray | None = None) -> Pool:
    count = len(x)
    features = {"wide": x, "narrow": x[:, :3] * 2.0}
    return Pool(
        name="made",
        features=features,
        present=np.ones((count, 2), bool) if present is None else present,
        labels=np.arange(count) % 3 if y is None else y,
        class_names=("a", "b", "c"),
        ids=np.array([f"s{i}" for i in range(count)]),
    )


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(3.0, 5.0, (90, 20)) @ rng.normal(size=(20, 20))


def test_nothing_is_fitted_on_the_other_rows(x: np.ndarray) -> None:
    changed = x.copy()
    changed[OTHER] = 1000.0 - 7.0 * changed[OTHER]
    one, two = (prepare(make(values), FIT, OTHER, dim=4) for values in (x, changed))
    torch.testing.assert_close(one.x[:, :, :60], two.x[:, :, :60], rtol=0, atol=0)
    torch.testing.assert_close(one.density[:60], two.density[:60], rtol=0, atol=0)
    assert not torch.equal(one.x[:, :, 60:], two.x[:, :, 60:])
    assert (one.density[60:] == 0).all()  # no neighbours are looked up for rows that only measure


def test_no_label_is_looked_at(x: np.ndarray) -> None:
    one, two = prepare(make(x), FIT, OTHER), prepare(make(x, (np.arange(90) + 1) % 3), FIT, OTHER)
    torch.testing.assert_close(one.x, two.x, rtol=0, atol=0)


def test_fitted_rows_are_standardised_projected_and_padded(x: np.ndarray) -> None:
    data = prepare(make(x), FIT, OTHER, dim=4)
    assert data.x.shape == (2, 5, 90)
    wide, narrow = data.x[0, :4, :60], data.x[1, :3, :60]
    torch.testing.assert_close(narrow.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(narrow.std(1, correction=0), torch.ones(3), atol=1e-5, rtol=0)
    assert (data.x[1, 3] == 0).all()  # padding
    assert (data.x[:, 4] == 1).all()  # the constant that carries biases
    # Principal components: uncorrelated, in falling order, of mean variance 1.
    covariance = torch.cov(wide, correction=0)
    torch.testing.assert_close(covariance, torch.diag(covariance.diagonal()), atol=1e-4, rtol=0)
    assert (covariance.diagonal().diff() <= 1e-5).all()
    assert covariance.diagonal().mean().item() == pytest.approx(1.0, abs=1e-4)


def test_constant_features_and_outliers_stay_finite(x: np.ndarray) -> None:
    x[:, 1] = 4.0
    x[70, 0] = 1e9
    data = prepare(make(x), FIT, OTHER)
    assert torch.isfinite(data.x).all()
    assert data.x.abs().max() <= CLIP and (data.x[0, 1] == 0).all()


@pytest.mark.parametrize("unit", [1e-3, 1e-8, 1e-9, 1e-12, 1e-30, 1e9])
def test_the_unit_of_a_feature_does_not_matter(unit: float, x: np.ndarray) -> None:
    scaled = x.copy()
    scaled[:, ::2] *= unit
    one, two = (prepare(make(values), FIT, OTHER, dim=20) for values in (x, scaled))
    torch.testing.assert_close(one.x, two.x, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-12, 4.0, 1.7e12 + 0.3])
def test_constants_are_nothing_whatever_their_size(value: float, x: np.ndarray) -> None:
    x[:, 1] = value
    assert (prepare(make(x), FIT, OTHER).x[:, 1] == 0).all()


def test_absent_values_do_not_matter(x: np.ndarray) -> None:
    present = np.ones((90, 2), bool)
    present[::4, 0] = False
    pools = []
    for filler in (0.0, np.nan):
        values = x.copy()
        pool = make(values, present=present)
        wide = values.copy()
        wide[::4] = filler
        pools.append(Pool(**{**vars(pool), "features": {"wide": wide, "narrow": pool.features["narrow"]}}))
    one, two = (prepare(p, FIT, OTHER, dim=4) for p in pools)
    torch.testing.assert_close(one.x, two.x, rtol=0, atol=0)
    assert one.present is not None and not one.present[0, ::4].any() and (one.x[0, :4, ::4] == 0).all()


def test_density_is_higher_within_a_cluster(rng: np.random.Generator) -> None:
    x = rng.normal(size=(90, 20))
    x[:20] = x[0] + 0.05 * rng.normal(size=(20, 20))
    density = prepare(make(x), np.arange(90)).density
    assert density[:20].min() > density[20:].max()


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, x: np.ndarray) -> None:
    whole = prepare(make(x), FIT, OTHER, dim=4)
    assert BLOCK > 90
    monkeypatch.setattr("envs.models.frozen.preparation.BLOCK", 7)
    torch.testing.assert_close(prepare(make(x), FIT, OTHER, dim=4).x, whole.x, atol=1e-5, rtol=1e-4)


def test_a_modality_that_no_fitting_row_has_is_nothing(x: np.ndarray) -> None:
    present = np.ones((90, 2), bool)
    present[FIT, 0] = False
    data = prepare(make(x, present=present), FIT, OTHER, dim=4)
    assert torch.isfinite(data.x).all() and (data.x[0, :4] == 0).all() and (data.x[1, :3] != 0).any()


def test_inputs_are_the_features_of_these_rows_side_by_side(x: np.ndarray) -> None:
    pool = make(x)
    data = prepare(pool, FIT, OTHER, dim=4)
    rows = np.array([70, 3, 3])
    inputs = data.inputs(rows)
    assert inputs.shape == (2 * 4, 3)
    assert torch.equal(inputs, data.x[:, :4, rows].reshape(8, 3))  # without the constant
    transformed = data.transforms[0](pool.take("wide", rows))
    np.testing.assert_allclose(inputs[:4].numpy().T, transformed, rtol=1e-5)


def test_rows_are_found_in_any_order_they_were_given(x: np.ndarray) -> None:
    data = prepare(make(x), FIT[::-1], OTHER[::2])
    assert (data.rows == np.union1d(FIT, OTHER[::2])).all()
    assert (data.rows[data.columns(np.array([88, 5]))] == [88, 5]).all()


@pytest.mark.parametrize("gaps", [False, True])
def test_prepared_rows_travel_as_arrays_that_processes_share(gaps: bool, x: np.ndarray) -> None:
    present = np.ones((90, 2), bool)
    present[::4, 0] = not gaps
    data = prepare(make(x, present=present), FIT, OTHER, dim=4)
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    tensors = [t for t in (data.x, data.present, data.labels, data.density) if t is not None]
    sizes = [t.numel() * t.element_size() for t in tensors]
    outside = sorted(len(buffer.raw()) for buffer in buffers)
    assert all(outside.count(size) >= sizes.count(size) for size in sizes)  # out of band, hence not copied
    assert len(content) < 5_000
    given = [memoryview(bytes(buffer.raw())).toreadonly() for buffer in buffers]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # shared memory is read-only
        sent = pickle.loads(content, buffers=given)
    assert (sent.present is None) == (not gaps)
    for name in ("x", "labels", "density") + (("present",) if gaps else ()):
        assert torch.equal(getattr(sent, name), getattr(data, name))
    assert (sent.rows == data.rows).all() and (sent.modalities, sent.num_classes) == (data.modalities, data.num_classes)
    assert torch.equal(sent.inputs(FIT), data.inputs(FIT))
