"""Strategies that run the selection network greedily: a trained policy, and the weights set by hand."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from envs.candidates import CandidateConfig, offer
from envs.round import Round
from policies.selector import Selector, SelectorConfig
from policies.start import initial_selector


class Learned:
    """A policy as a strategy.

    Args:
        selector: the network.
        candidates: how the policy's candidates were chosen in training.
    """

    def __init__(self, selector: Selector, candidates: CandidateConfig):
        self.selector, self.candidates = selector, candidates

    def __call__(self, round_: Round, batch_size: int) -> Tensor:
        """Pool positions [E, b], greedily."""
        offered = offer(round_, batch_size, self.candidates, self.selector.config.features)
        with round_.stopwatch.measure("picking"):
            slots = self.selector.select(offered.observation(entries=self.selector.entries), batch_size)
        return torch.take_along_dim(offered.positions, slots, 1)


@lru_cache(maxsize=1)
def _hand_tuned() -> Learned:
    batch_features = ("gradient_distance", "batch_distance")
    config = SelectorConfig(("margin", "density"), batch_features, initial="hand_tuned")
    return Learned(initial_selector(config), CandidateConfig())


def hand_tuned(round_: Round, batch_size: int) -> Tensor:
    """Fixed weights: margin, early density and batch distance, gradient distance; picks [E, b]."""
    return _hand_tuned()(round_, batch_size)
