"""Random: every unlabelled sample alike."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.round import Round


def random(round_: Round, batch_size: int) -> Tensor:
    """Draw uniformly without replacement; picks [E, b]."""
    keys = round_.uniforms("random", round_.available.shape[1])
    return keys.masked_fill(~round_.available, -torch.inf).topk(batch_size, dim=1).indices
