"""What validation rows say about task models: accuracy, calibration, and each modality's head beside the whole."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from envs.models.base import RowResults

ECE_BINS = 10


@dataclass(frozen=True)
class Validation:
    """What the validation rows say about the E task models."""

    accuracy: Tensor  # [E] Top-1 of the multimodal head
    nll: Tensor  # [E]
    ece: Tensor  # [E] expected calibration error
    delta: Tensor  # [E, M] Top-1 of head m minus that of the multimodal head


def validate(results: RowResults) -> Validation:
    """What choosers may know of the results on validation rows."""
    accuracy = results.correct.mean(1)
    return Validation(
        accuracy=accuracy,
        nll=-results.likelihood.clamp_min(1e-12).log().mean(1),
        ece=calibration_error(results.confidence, results.correct, ECE_BINS),
        delta=results.modality_accuracy() - accuracy[:, None],
    )


def calibration_error(confidence: Tensor, correct: Tensor, bins: int) -> Tensor:
    """Expected calibration error (Guo et al. 2017, eq. 3) over bins of equal width, [E].

    Args:
        confidence: in [0, 1], [E, R].
        correct: 0 or 1, [E, R].
        bins: how many.
    """
    of = (confidence * bins).long().clamp_max(bins - 1)
    gap = correct.new_zeros(len(of), bins).scatter_add_(1, of, confidence - correct)
    return gap.abs().sum(1) / correct.shape[1]
