"""RL-MBA's static score (Zeng et al., CVPR 2026, arXiv 2603.25107)."""

from __future__ import annotations

from torch import Tensor

from envs.candidates.published_score import published_score
from envs.round import Round
from policies.strategies.picking import largest


def score(round_: Round, batch_size: int) -> Tensor:
    """The largest scores q, beta = 1; picks [E, b]."""
    return largest(published_score(round_, batch_size, beta=1.0).q, round_, batch_size)
