"""Marks on held-out rows, block by block, against their definitions on whole outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.models import accuracy as held_out
from envs.models.accuracy import Marks, mark, validate
from envs.models.frozen.model import TaskModel, initial_parameters, per_episode

STARTS, MODALITIES, DIM, CLASSES, HIDDEN = 2, 3, 4, 5, 6


def case(seed: int, copies: int, rows: int, missing: bool) -> tuple[TaskModel, torch.Tensor, torch.Tensor | None]:
    """Models of STARTS x copies episodes that all differ, and rows x for each start."""
    rng = np.random.default_rng(seed)
    parameters = initial_parameters(list(range(STARTS * copies)), MODALITIES, DIM, CLASSES, HIDDEN)
    model = TaskModel(parameters, torch.zeros(STARTS * copies), torch.zeros(STARTS * copies))
    x = rng.normal(size=(STARTS, MODALITIES, DIM + 1, rows)).astype(np.float32)
    x[:, :, -1] = 1.0
    present = None
    if missing:
        there = rng.random((STARTS, MODALITIES, rows)) < 0.6
        there[0, 2] = False  # a modality that no row has
        there[:, 0] |= ~there.any(1)
        x *= there[:, :, None]
        present = torch.from_numpy(there)
    return model, torch.from_numpy(x), present


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(1, 9), st.booleans(), st.sampled_from([1, 2, 64]))
@settings(deadline=None, max_examples=40)
def test_marks_are_those_of_the_whole_outputs(
    seed: int, copies: int, rows: int, missing: bool, least_rows: int
) -> None:
    model, x, present = case(seed, copies, rows, missing)
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, CLASSES, (STARTS, rows)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "CPU_FLOATS", 1)
        patch.setattr(held_out, "LEAST_ROWS", least_rows)
        marks = mark(model, x, present, labels)
    outputs = model.predict(x, present)
    every = per_episode(labels, len(outputs.logits))
    p = outputs.probabilities
    assert torch.equal(marks.correct, (p.argmax(1) == every).float())
    torch.testing.assert_close(marks.confidence, p.amax(1))
    torch.testing.assert_close(marks.likelihood, p.gather(1, every[:, None])[:, 0])
    own = outputs.evidence.argmax(2) == every[:, None]
    if present is not None:
        own &= outputs.present
    assert torch.equal(marks.modality_correct, own)
    counted = torch.full_like(own, True) if present is None else outputs.present
    expected = own.sum(2) / counted.sum(2).clamp_min(1)
    torch.testing.assert_close(marks.modality_accuracy(), expected)
    some = marks.rows(slice(rows // 2, None))
    expected = own[..., rows // 2 :].sum(2) / counted[..., rows // 2 :].sum(2).clamp_min(1)
    torch.testing.assert_close(some.modality_accuracy(), expected)


def test_validation_by_hand() -> None:
    marks = Marks(
        correct=torch.tensor([[1.0, 0.0, 1.0, 1.0]]),
        confidence=torch.tensor([[0.95, 0.95, 0.61, 1.0]]),
        likelihood=torch.tensor([[0.95, 0.05, 0.61, 1.0]]),
        modality_correct=torch.tensor([[[True, True, False, False], [True, True, True, True]]]),
        present=None,
    )
    found = validate(marks)
    assert found.accuracy.item() == 0.75
    assert found.nll.item() == pytest.approx(-np.log([0.95, 0.05, 0.61, 1.0]).mean(), rel=1e-5)
    # Two of the bins: 0.9 to 1 holds .95, .95 and 1.0, of which two are right; 0.6 to 0.7 holds .61.
    assert found.ece.item() == pytest.approx((abs(2.90 - 2) + abs(0.61 - 1)) / 4, rel=1e-5)
    torch.testing.assert_close(found.delta, torch.tensor([[-0.25, 0.25]]))
