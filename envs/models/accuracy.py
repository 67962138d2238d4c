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
    bins = (results.confidence * ECE_BINS).long().clamp_max(ECE_BINS - 1)
    gap = results.correct.new_zeros(len(bins), ECE_BINS).scatter_add_(1, bins, results.confidence - results.correct)
    return Validation(
        accuracy=accuracy,
        nll=-results.likelihood.clamp_min(1e-12).log().mean(1),
        ece=gap.abs().sum(1) / results.correct.shape[1],
        delta=results.modality_accuracy() - accuracy[:, None],
    )
