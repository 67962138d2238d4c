"""Random selection: every unlabelled sample is equally likely."""

from __future__ import annotations

from torch import Tensor

from envs.round import Round
from policies.strategies.picking import largest


def random(round_: Round, batch_size: int) -> Tensor:
    """Draw uniformly without replacement; picks [E, b]."""
    return largest(round_.uniforms("random", round_.available.shape[1]), round_, batch_size)
