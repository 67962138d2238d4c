"""Results on held-out rows, block by block, against their definitions on whole outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.models.base import per_episode
from envs.models.frozen import model as frozen
from envs.models.frozen.fitting import Parameters, initial_parameters
from envs.models.frozen.model import judge, predict

STARTS, MODALITIES, DIM, CLASSES, HIDDEN = 2, 3, 4, 5, 6


def case(seed: int, copies: int, rows: int, missing: bool) -> tuple[Parameters, torch.Tensor, torch.Tensor | None]:
    """Models of STARTS x copies episodes that all differ, and rows x for each start."""
    rng = np.random.default_rng(seed)
    parameters = initial_parameters(list(range(STARTS * copies)), MODALITIES, DIM, CLASSES, HIDDEN)
    x = rng.normal(size=(STARTS, MODALITIES, DIM + 1, rows)).astype(np.float32)
    x[:, :, -1] = 1.0
    present = None
    if missing:
        there = rng.random((STARTS, MODALITIES, rows)) < 0.6
        there[0, 2] = False  # a modality that no row has
        there[:, 0] |= ~there.any(1)
        x *= there[:, :, None]
        present = torch.from_numpy(there)
    return parameters, torch.from_numpy(x), present


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 9), st.booleans(), st.sampled_from([1, 2, 64]))
@settings(deadline=None, max_examples=40)
def test_results_are_those_of_the_whole_outputs(
    seed: int, copies: int, rows: int, missing: bool, least_rows: int
) -> None:
    parameters, x, present = case(seed, copies, rows, missing)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, CLASSES, (STARTS, rows)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "CPU_FLOATS", 1)
        patch.setattr(frozen, "LEAST_ROWS", least_rows)
        results = judge(parameters, x, present, labels)
    outputs = predict(parameters, x, present)
    every = per_episode(labels, len(outputs.logits))
    p = outputs.probabilities
    assert torch.equal(results.correct, (p.argmax(1) == every).float())
    torch.testing.assert_close(results.confidence, p.amax(1))
    torch.testing.assert_close(results.likelihood, p.gather(1, every[:, None])[:, 0])
    own = outputs.evidence.argmax(2) == every[:, None]
    if present is not None:
        own &= outputs.present
    assert torch.equal(results.modality_correct, own)
    counted = torch.full_like(own, True) if present is None else outputs.present
    expected = own.sum(2) / counted.sum(2).clamp_min(1)
    torch.testing.assert_close(results.modality_accuracy(), expected)
    some = results.rows(slice(rows // 2, None))
    expected = own[..., rows // 2 :].sum(2) / counted[..., rows // 2 :].sum(2).clamp_min(1)
    torch.testing.assert_close(some.modality_accuracy(), expected)
