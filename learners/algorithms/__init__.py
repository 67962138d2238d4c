"""Algorithms by name: how a policy's weights follow from episodes. To add one, see `learners.algorithms.base`."""

from __future__ import annotations

from envs.registry import Registry
from learners.algorithms.base import Trainer

ALGORITHMS: Registry[str | type[Trainer]] = Registry(
    "algorithm",
    "subclass of learners.algorithms.base.Trainer",
    lambda found: isinstance(found, type) and issubclass(found, Trainer),
    # By module and class, so that only the algorithm that a run uses is imported: RLlib alone takes seconds.
    {
        "reinforce": "learners.algorithms.gradient:ReinforceTrainer",
        "ppo": "learners.algorithms.gradient:PPOTrainer",
        "appo": "learners.algorithms.gradient:APPOTrainer",
        "evolution": "learners.algorithms.evolution:EvolutionTrainer",
    },
)


def get_algorithm(name: str) -> type[Trainer]:
    """The algorithm of this name, or the one that `module:Class` names.

    Raises:
        ConfigError: where there is none.
    """
    return ALGORITHMS.find(name)
