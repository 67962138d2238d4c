"""What validation rows say about task models, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from envs.models.accuracy import calibration_error, validate
from envs.models.base import RowResults


def test_validation_by_hand() -> None:
    results = RowResults(
        correct=torch.tensor([[1.0, 0.0, 1.0, 1.0]]),
        confidence=torch.tensor([[0.95, 0.95, 0.61, 1.0]]),
        likelihood=torch.tensor([[0.95, 0.05, 0.61, 1.0]]),
        modality_correct=torch.tensor([[[True, True, False, False], [True, True, True, True]]]),
        present=None,
    )
    found = validate(results)
    assert found.accuracy.item() == 0.75
    assert found.nll.item() == pytest.approx(-np.log([0.95, 0.05, 0.61, 1.0]).mean(), rel=1e-5)
    # Two of the bins: 0.9 to 1 holds .95, .95 and 1.0, of which two are right; 0.6 to 0.7 holds .61.
    assert found.ece.item() == pytest.approx((abs(2.90 - 2) + abs(0.61 - 1)) / 4, rel=1e-5)
    torch.testing.assert_close(found.delta, torch.tensor([[-0.25, 0.25]]))


def test_calibration_error_by_hand() -> None:
    """Two bins: 0.4 and 0.2, of which one is right; 0.9 and 1.0, of which both are."""
    confidence = torch.tensor([[0.4, 0.9, 1.0, 0.2], [0.5, 0.5, 0.5, 0.5]])
    correct = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
    expected = torch.tensor([(abs(0.6 - 1) + abs(1.9 - 2)) / 4, 0.0])
    torch.testing.assert_close(calibration_error(confidence, correct, 2), expected)
