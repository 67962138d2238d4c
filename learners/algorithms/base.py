"""What an algorithm is: a class that trains one policy, and that answers for its settings before it does.

To add one, subclass `Trainer` and write `step`; `--algorithm module:Class` then trains with it. `examples/algorithm.py`
is one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.policy_file import PolicyCard, load_policy, save_policy
from policies.selector import Selector
from policies.start import initial_selector

if TYPE_CHECKING:
    from learners.settings import TrainConfig

# What follows a checkpoint's name where it is damaged.
UNREADABLE = "cannot be read ({reason}). Delete that folder and --resume again to go on from the one before it"
Say = Callable[..., None]  # as `Progress`: shows a line, `last=True` ends it


def silent(text: str, last: bool = False) -> None:
    """A `Say` that shows nothing."""


class Trainer:
    """An algorithm at work on one run.

    As it stands it keeps one policy in the driver, `policy`, and its checkpoints; a `step` that plays episodes and
    changes that policy makes it an algorithm.

    Args:
        config: the settings of the run.
        card: the card of the policy; whoever draws pools from families adds their labels to it.
        done: iterations already done; `restore` follows where there are any.
        say: shows a line while something takes long.
    """

    played = "the policy in training"  # what an iteration's figures were measured on, for the small print
    verb = "learns"  # what it does with episodes, beside playing them
    needs_baselines = False  # whether rewards are relative to the curves of `reward.baselines`
    needs_ray = False  # whether Ray must run even where the driver plays alone
    trusts_checkpoints = False  # whether `restore` may run what a checkpoint holds
    process_bytes = 400e6  # a process that plays and has done nothing yet: Python, torch and Ray; docs/scaling.md

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        """Raise ConfigError where the algorithm cannot work by these settings."""

    @classmethod
    def iterations(cls, config: TrainConfig) -> int:
        """The most iterations of a run."""
        return config.learner.iterations

    @classmethod
    def until(cls, config: TrainConfig, iterations: int) -> TrainConfig:
        """The same training, ending after so many iterations."""
        return replace(config, learner=replace(config.learner, iterations=iterations))

    @classmethod
    def together(cls, config: TrainConfig) -> tuple[int, int]:
        """Starts that one process advances together, and episodes of each."""
        return config.learner.groups // max(config.resources.num_env_runners, 1), config.learner.copies

    @classmethod
    def sends_observations(cls, config: TrainConfig) -> bool:
        """Whether observations travel to where learning is."""
        return False

    @classmethod
    def observations_held(cls, config: TrainConfig) -> int:
        """About how many rounds' observations of an episode a process that plays holds at once."""
        return 0

    @classmethod
    def learning_bytes(cls, config: TrainConfig) -> tuple[float, float]:
        """About what an iteration's episodes, and learning from them, add to the driver and to each remote learner."""
        return 0.0, 0.0

    def __init__(self, config: TrainConfig, card: PolicyCard, done: int = 0, say: Say = silent):
        self.config, self.card, self.done, self.say = config, card, done, say
        self.histograms: dict[str, np.ndarray] = {}  # values of the last iteration by TensorBoard tag

    @cached_property
    def policy(self) -> Selector:
        """The policy in training, at first with its initial weights."""
        return initial_selector(self.config.policy)

    def step(self) -> tuple[dict[str, float], dict[str, float]] | None:
        """One iteration.

        Returns:
            its figures, `episodes` (played in it) and `aulc` among them, and seconds by kind; None where nobody could
            play.
        """
        raise NotImplementedError

    def selector(self) -> Selector:
        """The policy to export."""
        return self.policy

    def save(self, folder: str) -> Any:
        """Write a checkpoint into an empty folder."""
        save_policy(self.policy, self.card, folder)

    def restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            PolicyError: where that cannot be.
        """
        policy, card = load_policy(checkpoint)
        self.policy.load_state_dict(policy.state_dict())
        self.card.trained_on, self.card.labels_used = card.trained_on, card.labels_used

    def stop(self) -> None:
        """Free what is occupied."""
