"""How right task models are on held-out rows: found block by block, so that of a row only its marks stay in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from envs.models.frozen.model import TaskModel, per_episode
from envs.round import Validation

CPU_FLOATS = 2**18  # of a block's outputs on a processor: they should stay in its cache
GPU_FLOATS = 2**28  # elsewhere: 1 GB
LEAST_ROWS = 64  # of a block
ECE_BINS = 10


@dataclass(frozen=True)
class Marks:
    """What E task models made of R rows, whose labels are known; [E, R] each unless said otherwise."""

    correct: Tensor  # 1 where the multimodal head is right, else 0
    confidence: Tensor  # the multimodal head's largest probability
    likelihood: Tensor  # its probability of the true class
    modality_correct: Tensor  # bool [E, M, R], whether each modality's own head is right; False where it is absent
    present: Tensor | None  # bool [S, M, R]; None: every row has every modality

    def rows(self, at: slice) -> Marks:
        """Those of some rows."""
        present = None if self.present is None else self.present[..., at]
        return Marks(
            self.correct[:, at],
            self.confidence[:, at],
            self.likelihood[:, at],
            self.modality_correct[..., at],
            present,
        )

    def modality_accuracy(self) -> Tensor:
        """Top-1 of each modality's own head over the rows that have the modality, [E, M]."""
        right = self.modality_correct.sum(2)
        if self.present is None:
            return right / self.modality_correct.shape[2]
        return right / per_episode(self.present.sum(2).clamp_min(1), len(right))


def mark(model: TaskModel, x: Tensor, present: Tensor | None, labels: Tensor) -> Marks:
    """Let E models answer for the rows of S starts, each shared by E / S copies.

    Args:
        x: [S, M, D + 1, R].
        present: bool [S, M, R], or None where nothing is missing.
        labels: int64 [S, R].
    """
    p = model.parameters
    (starts, modalities, _, rows), (episodes, _, hidden, _) = x.shape, p.encoder.shape
    copies, classes = episodes // starts, p.modality_head.shape[2]
    floats = copies * (modalities * (2 * hidden + classes) + 2 * classes)  # of a row
    size = max(LEAST_ROWS, (CPU_FLOATS if x.device.type == "cpu" else GPU_FLOATS) // floats)
    correct, confidence, likelihood = (x.new_empty(episodes, rows) for _ in range(3))
    modality_correct = torch.empty(episodes, modalities, rows, dtype=torch.bool, device=x.device)
    for s in range(starts):
        mine = slice(s * copies, (s + 1) * copies)
        # The copies' encoders side by side: one product for each modality, and no copy of x for every episode.
        encoders = p.encoder[mine].transpose(0, 1).reshape(modalities, copies * hidden, -1)
        modality_heads, multimodal_heads = p.modality_head[mine].flatten(0, 1), p.multimodal_head[mine]
        for low in range(0, rows, size):
            at = slice(low, low + size)
            z = torch.bmm(encoders, x[s, :, :, at]).relu_().view(modalities, copies, hidden, -1)
            if present is not None:
                z.mul_(present[s, :, None, None, at])
            z = z.transpose(0, 1).reshape(copies, modalities * hidden, -1)
            y = labels[s, at].expand(copies, 1, -1)
            q = torch.softmax(torch.bmm(multimodal_heads, z), 1)
            likelihood[mine, at], confidence[mine, at] = q.gather(1, y)[:, 0], q.amax(1)
            # Comparing with the largest, not argmax: over a leading axis it is many times faster; ties have no weight.
            correct[mine, at] = (likelihood[mine, at] >= confidence[mine, at]).float()
            heads = torch.bmm(modality_heads, z.view(copies * modalities, hidden, -1))
            heads = heads.view(copies, modalities, classes, -1)
            own = heads.gather(2, y[:, None].expand(-1, modalities, -1, -1))[:, :, 0]
            modality_correct[mine, :, at] = own >= heads.amax(2)
    if present is not None:
        modality_correct &= per_episode(present, episodes)
    return Marks(correct, confidence, likelihood, modality_correct, present)


def validate(marks: Marks) -> Validation:
    """What choosers may know of the marks on validation rows."""
    accuracy = marks.correct.mean(1)
    bins = (marks.confidence * ECE_BINS).long().clamp_max(ECE_BINS - 1)
    gap = marks.correct.new_zeros(len(bins), ECE_BINS).scatter_add_(1, bins, marks.confidence - marks.correct)
    return Validation(
        accuracy=accuracy,
        nll=-marks.likelihood.clamp_min(1e-12).log().mean(1),
        ece=gap.abs().sum(1) / marks.correct.shape[1],
        delta=marks.modality_accuracy() - accuracy[:, None],
    )
