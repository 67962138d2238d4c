"""From a pool's raw features to what the task model sees: standardised, projected, padded to one width."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from envs.pools import Pool
from envs.pools.checks import UNKNOWN

CONSTANT = 1e-8  # deviation below which a feature is constant, relative to its largest value, or to 1 beyond
CLIP = 10.0  # standard deviations beyond which a feature value is cut off
BLOCK = 8192  # rows read at a time, so that a memory-mapped pool never lies in memory whole
NEIGHBOURS = 10  # whose mean similarity is a sample's density
_TENSORS = ("x", "present", "labels", "density")
ANCHORS = 4096  # rows among which neighbours are looked for in a larger pool


@dataclass(frozen=True)
class Transform:
    """Raw features [R, D] to [R, D']: standardised and clipped, then projected where D is large."""

    mean: np.ndarray  # [D]
    deviation: np.ndarray  # [D]; inf for a constant feature
    basis: np.ndarray | None = None  # [D, D'] principal components
    scale: float = 1.0  # of all components

    def __call__(self, block: np.ndarray) -> np.ndarray:
        standard = np.clip((block - self.mean) / self.deviation, -CLIP, CLIP)
        return standard if self.basis is None else standard @ self.basis / self.scale


@dataclass(frozen=True)
class PreparedPool:
    """Some rows of a pool, ready for the task model; column i is row `rows[i]` of the pool."""

    rows: np.ndarray  # int64 [N], ascending
    x: Tensor  # float32 [M, D + 1, N]; the last feature is the constant 1
    present: Tensor | None  # bool [M, N]; None: nothing is missing
    labels: Tensor  # int64 [N]
    density: Tensor  # float32 [N] mean cosine similarity to the nearest neighbours; 0 for unfitted rows
    modalities: tuple[str, ...]
    num_classes: int
    transforms: tuple[Transform, ...] = ()  # what made x of the raw features, by modality

    def columns(self, rows: np.ndarray) -> np.ndarray:
        """Columns of these pool rows."""
        return np.searchsorted(self.rows, rows)

    def inputs(self, rows: np.ndarray) -> Tensor:
        """Prepared features of these pool rows, all modalities side by side, [M D, R]."""
        return self.x[:, :-1, torch.from_numpy(self.columns(rows)).to(self.x.device)].flatten(0, 1)

    def relabelled(self, rows: np.ndarray, labels: np.ndarray, num_classes: int) -> PreparedPool:
        """The same rows with other labels: int64 of these pool rows; all others have none."""
        known = torch.full((len(self.rows),), UNKNOWN, dtype=torch.int64)
        known[self.columns(rows)] = torch.from_numpy(labels)
        return replace(self, labels=known.to(self.x.device), num_classes=num_classes)

    def to(self, device: str | torch.device) -> PreparedPool:
        """The same rows with their tensors on a device."""
        moved: dict[str, Any] = {k: None if v is None else v.to(device) for k, v in self._tensors().items()}
        return replace(self, **moved)

    def _tensors(self) -> dict[str, Tensor | None]:
        return {name: getattr(self, name) for name in _TENSORS}

    def __reduce__(self) -> tuple[Callable[..., PreparedPool], tuple[dict[str, Any]]]:
        # As numpy arrays, which processes of a machine share without copies.
        arrays = {k: None if v is None else v.cpu().numpy() for k, v in self._tensors().items()}
        return _from_arrays, (
            {f.name: arrays[f.name] if f.name in arrays else getattr(self, f.name) for f in fields(self)},
        )


def _from_arrays(given: dict[str, Any]) -> PreparedPool:
    with warnings.catch_warnings():
        # Shared arrays are read-only and torch does not know that; rows at rest are only read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensors = {k: None if given[k] is None else torch.from_numpy(given[k]) for k in _TENSORS}
    return PreparedPool(**(given | tensors))


def prepare(
    pool: Pool,
    fit_rows: np.ndarray,
    other_rows: np.ndarray | None = None,
    dim: int = 32,
    device: str | torch.device = "cpu",
) -> PreparedPool:
    """Standardise and project each modality.

    Means, deviations, principal components and densities are fitted on `fit_rows` alone; `other_rows` (the test
    rows of a comparison) are only mapped. No label is looked at.

    Args:
        fit_rows: rows that the learner may see (labels unused).
        other_rows: further rows to map.
        dim: components kept where a modality is wider.
    """
    fit_rows = np.sort(np.asarray(fit_rows))
    other = np.empty(0, np.int64) if other_rows is None else np.asarray(other_rows)
    rows = np.sort(np.concatenate([fit_rows, other]))
    widths = [min(dim, f.shape[1]) for f in pool.features.values()]
    x = np.zeros((len(widths), max(widths) + 1, len(rows)), np.float32)
    x[:, -1] = 1.0
    transforms = []
    for m, modality in enumerate(pool.modalities):
        transform = _fit_transform(pool, modality, fit_rows[pool.present[fit_rows, m]], widths[m])
        transforms.append(transform)
        for low in range(0, len(rows), BLOCK):
            block = rows[low : low + BLOCK]
            mapped = transform(pool.take(modality, block))
            mapped[~pool.present[block, m]] = 0.0
            x[m, : widths[m], low : low + len(block)] = mapped.T
    present = pool.present[rows].T
    fitted = np.isin(rows, fit_rows)
    density = np.zeros(len(rows), np.float32)
    density[fitted] = _density(x[:, :-1, fitted])
    return PreparedPool(
        rows=rows,
        x=torch.from_numpy(x).to(device),
        present=None if present.all() else torch.from_numpy(present.copy()).to(device),
        labels=torch.from_numpy(np.asarray(pool.labels[rows], np.int64)).to(device),
        density=torch.from_numpy(density).to(device),
        modalities=tuple(pool.features),
        num_classes=pool.num_classes,
        transforms=tuple(transforms),
    )


def _fit_transform(pool: Pool, modality: str, rows: np.ndarray, width: int) -> Transform:
    """The transform fitted on `rows`; where there are none, every feature counts as constant."""
    blocks = [rows[low : low + BLOCK] for low in range(0, max(len(rows), 1), BLOCK)]
    total, low, high = (np.full(pool.features[modality].shape[1], value) for value in (0.0, np.inf, -np.inf))
    for b in blocks:
        x = pool.take(modality, b)
        total = total + x.sum(0)
        low, high = np.minimum(low, x.min(0, initial=np.inf)), np.maximum(high, x.max(0, initial=-np.inf))
    mean = total / max(len(rows), 1)
    squares = sum(((pool.take(modality, b) - mean) ** 2).sum(0) for b in blocks)
    deviation = np.sqrt(squares / max(len(rows), 1))
    # A constant feature says nothing. Small numbers alone are no sign of one: that depends on the unit.
    magnitude = np.minimum(np.maximum(np.abs(low), np.abs(high)), 1.0)
    deviation[(low >= high) | (deviation < CONSTANT * magnitude)] = np.inf

    plain = Transform(mean, deviation)
    if width == pool.features[modality].shape[1]:
        return plain
    covariance = sum(s.T @ s for s in (plain(pool.take(modality, b)) for b in blocks))
    values, vectors = np.linalg.eigh(covariance / max(len(rows), 1))
    basis = vectors[:, ::-1][:, :width]
    # Eigenvectors have no sign of their own.
    basis = basis * np.where(basis[np.abs(basis).argmax(0), np.arange(width)] < 0, -1.0, 1.0)
    # One scale for all components keeps their proportions; the mean variance becomes 1, as without projection.
    scale = np.sqrt(max(values[::-1][:width].mean(), 1e-12))
    return Transform(mean, deviation, basis, float(scale))


def _density(x: np.ndarray) -> np.ndarray:
    """Mean cosine similarity to the NEIGHBOURS nearest rows, over the concatenated modalities. x: [M, D, N]."""
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    # Divided by how many modalities a row has, so that a missing one does not look like a low density.
    unit = unit / np.sqrt(np.maximum((unit != 0).any(1, keepdims=True).sum(0, keepdims=True), 1))
    rows = torch.from_numpy(unit.reshape(-1, x.shape[2]).T.astype(np.float32))
    count = len(rows)
    anchors = rows
    if count > ANCHORS:
        chosen = np.sort(np.random.default_rng(0).choice(count, ANCHORS, replace=False))
        anchors = rows[torch.from_numpy(chosen)]
    k = min(NEIGHBOURS + 1, len(anchors))
    out = np.empty(count, np.float32)
    for low in range(0, count, BLOCK):
        nearest = (rows[low : low + BLOCK] @ anchors.T).topk(k, dim=1).values
        # The nearest row is usually the row itself.
        out[low : low + BLOCK] = (nearest[:, 1:] if k > 1 else nearest).mean(1).numpy()
    return out
