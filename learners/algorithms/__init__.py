"""Algorithms by name: how a policy's weights follow from episodes. To add one, see `learners.algorithms.base`."""

from __future__ import annotations

from importlib import import_module

from envs.errors import ConfigError, nearest
from learners.algorithms.base import Trainer

# By module and class, so that only the algorithm that a run uses is imported: RLlib alone takes seconds.
ALGORITHMS: dict[str, str | type[Trainer]] = {
    "reinforce": "learners.algorithms.gradient:ReinforceTrainer",
    "ppo": "learners.algorithms.gradient:PPOTrainer",
    "appo": "learners.algorithms.gradient:APPOTrainer",
    "evolution": "learners.algorithms.evolution:EvolutionTrainer",
}


def register(name: str, algorithm: type[Trainer]) -> None:
    """Enter an algorithm under a name; it must be done in every process that reads settings that say the name."""
    ALGORITHMS[name] = algorithm


def get_algorithm(name: str) -> type[Trainer]:
    """The algorithm of this name, or the one that `module:Class` names.

    Raises:
        ConfigError: where there is none.
    """
    found: object = ALGORITHMS.get(name, name)
    if isinstance(found, str):
        found = _imported(found)
    if not (isinstance(found, type) and issubclass(found, Trainer)):
        raise ConfigError(f"algorithm is {name!r}, which is no subclass of learners.algorithms.base.Trainer.")
    return found


def _imported(name: str) -> object:
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(
            f"algorithm is {name!r}.{nearest(name, ALGORITHMS)} It must be one of {', '.join(ALGORITHMS)}, or "
            "module:Class of your own."
        )
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"algorithm is {name!r}, which cannot be imported: {error}.") from error
