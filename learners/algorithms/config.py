"""Settings of the algorithms: each declared once, its default and what it may hold beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from envs.errors import ConfigError
from envs.fields import Finite, OneOf, Section
from learners.advantages import ADVANTAGES


@dataclass(frozen=True)
class LearnerConfig(Section, prefix="learner."):
    """How weights follow from episodes by policy gradients: REINFORCE, PPO and APPO."""

    # group: return-to-go minus the group's mean; ema: one-step minus a moving average
    advantage: Annotated[str, OneOf(ADVANTAGES)] = "group"
    iterations: Annotated[int, Ge(1)] = 60  # at most; `minutes` may end training earlier
    groups: Annotated[int, Ge(1)] = 6  # S, starts per iteration, over all environment runners
    copies: Annotated[int, Ge(1)] = 16  # G, episodes per start
    learning_rate: Annotated[float, Gt(0)] = 0.08  # of Adam
    gradient_clip: Annotated[float, Gt(0)] = 1.0  # global norm
    weight_average: Annotated[float, Ge(0), Lt(1)] = 0.9  # decay per iteration of the exported mean weights
    advantage_decay: Annotated[float, Ge(0), Lt(1)] = 0.9  # ema: share of the moving average that survives an iteration
    advantage_clip: Annotated[float, Ge(0)] = 0.0  # ema: largest magnitude of an advantage; 0 for none

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.advantage == "group" and self.copies < 2:
            raise ConfigError("learner.copies is 1; advantage 'group' compares copies, so it needs at least 2.")


@dataclass(frozen=True)
class ProximalConfig(Section, prefix="proximal."):
    """What PPO and APPO add to `LearnerConfig`."""

    clip: Annotated[float, Gt(0), Lt(1)] = 0.2  # how far the probability ratio per pick may move from 1
    epochs: Annotated[int, Ge(1)] | None = None  # passes over an iteration's rows; none: 4 of ppo, 1 of appo
    minibatch_rows: Annotated[int, Ge(1)] = 256  # at most so many rows (rounds of episodes) in a gradient step


@dataclass(frozen=True)
class EvolutionConfig(Section, prefix="evolution."):
    """How weights follow from episodes by an evolution strategy (diagonal CMA-ES)."""

    generations: Annotated[int, Ge(1)] = 1000  # at most; `minutes` may end training earlier
    population: Annotated[int, Ge(4)] = 16  # P, weight vectors tried in a generation
    starts: Annotated[int, Ge(1)] = 2  # S, starts per source and generation; each is played by the whole population
    # Standard deviation of the first generation around the policy's initial weights: so small that it does not leave
    # what the policy that ships has learned.
    sigma0: Annotated[float, Gt(0), Finite()] = 0.2
    vary_protocol: bool = False  # draw initial labels, batch size and rounds anew for each generation and source
    # Play also on so many pools made of each data set's rows (envs.pools.oversampling), as large as a budget takes.
    oversample: Annotated[int, Ge(0)] = 0
