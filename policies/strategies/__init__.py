"""Strategies by name. One file each; one signature.

A strategy is a function `select(round_, batch_size) -> picks`: it looks at an `envs.round.Round` of E episodes
and gives pool positions int64 [E, b], without repeats and only unlabelled ones. It keeps no state; whatever it
draws comes from `round_.uniforms`, so equal starts give equal draws. To add one, see `examples/strategy.py`: wherever
a strategy's name is asked for, `module:function` names one of your own. One of this package has a file of its own and
is entered here: the tests then check it.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from envs.errors import StrategyError
from envs.registry import Registry
from envs.round import Round
from policies.strategies.badge import badge
from policies.strategies.bait import bait
from policies.strategies.bald import bald
from policies.strategies.bmmal import bmmal, bmmal_ce
from policies.strategies.clue import clue
from policies.strategies.clustering import kmeans, typiclust
from policies.strategies.coreset import coreset
from policies.strategies.coverage import maxherding, probcover
from policies.strategies.deepfool import deepfool
from policies.strategies.dropquery import dropquery
from policies.strategies.falcun import falcun
from policies.strategies.gcnal import gcnal
from policies.strategies.learned import hand_tuned
from policies.strategies.random import random
from policies.strategies.score import score
from policies.strategies.uherding import uherding
from policies.strategies.uncertainty import entropy, least_confidence, margin

Strategy = Callable[[Round, int], Tensor]

_OURS: dict[str, Strategy] = {
    "random": random,
    "least_confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
    "bald": bald,
    "deepfool": deepfool,
    "coreset": coreset,
    "kmeans": kmeans,
    "typiclust": typiclust,
    "probcover": probcover,
    "maxherding": maxherding,
    "uherding": uherding,
    "dropquery": dropquery,
    "clue": clue,
    "falcun": falcun,
    "badge": badge,
    "bait": bait,
    "bmmal": bmmal,
    "bmmal_ce": bmmal_ce,
    "gcnal": gcnal,
    "score": score,
    "hand_tuned": hand_tuned,
}
STRATEGIES = Registry("strategy", "function that picks batches", callable, _OURS, StrategyError)


def get_strategy(name: str) -> Strategy:
    """The strategy of this name, or the one that `module:function` names.

    Raises:
        StrategyError: with the nearest name and all the names.
    """
    return STRATEGIES.find(name)
