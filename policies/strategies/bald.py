"""BALD: mutual information between the label and the weights (Houlsby et al. 2011), by Monte Carlo dropout."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.round import Round
from policies.strategies.picking import largest

DROPOUT = 0.25  # of the encoder outputs, in training and afterwards
PASSES = 20


def bald(round_: Round, batch_size: int) -> Tensor:
    """The samples on which task models trained with dropout disagree most when it stays on; picks [E, b].

    A pass drops the same units for all samples, so each pass is one model (Kirsch et al. 2019, "BatchBALD"). The
    constant units, which carry the biases, are never dropped.
    """
    trained = round_.refitted(dropout=DROPOUT)
    embedding = trained.outputs.embedding()  # [E, M H, P]
    head = trained.model.head  # [E, C, M H]
    units = trained.outputs.hidden.shape[2]
    drawn = round_.uniforms("bald", PASSES * head.shape[2]).view(len(head), PASSES, -1, units)
    scale = (drawn >= DROPOUT).to(head.dtype) / (1.0 - DROPOUT)
    scale[..., -1] = 1.0
    mean = entropy = head.new_zeros(())
    with round_.stopwatch.measure("inference"):
        for mask in scale.flatten(2).unbind(1):  # [E, M H]
            p = torch.softmax(torch.bmm(head * mask[:, None], embedding), dim=1)
            mean = mean + p / PASSES
            entropy = entropy + torch.special.entr(p).sum(1) / PASSES
    return largest(torch.special.entr(mean).sum(1) - entropy, round_, batch_size)
