"""A population of policies on common ground: every one plays the same starts, and what it returns is compared there.

No ray: `learners.algorithms.evolution` decides where these functions run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from envs.candidates import CandidateConfig
from envs.models.base import TaskTrainer
from envs.pools.partition import Start
from envs.rewards import Outcome, RewardConfig, reward
from envs.simulation import ProtocolConfig, Simulation
from envs.source import torch_device
from policies.selector import Selector, SelectorConfig
from policies.strategies.learned import Learned

# What a varied protocol is drawn from: least and most, log-uniform. From tens of labels to over a thousand.
BATCH_SIZE = (4, 100)
INITIAL_BATCHES = (1.0, 4.0)  # initial labels, in batches
ROUNDS = (4, 10)

_FEWEST_LABELS = 10  # at the start of a varied protocol
_DRAWS = 100  # attempts at something random that fits
_EASE = 1e-8  # below this a spread is rounding


@dataclass(frozen=True)
class Arena:
    """What decides an episode beside its data set, its start and the policy."""

    protocol: ProtocolConfig
    candidates: CandidateConfig
    reward: RewardConfig
    policy: SelectorConfig


def play_population(
    trainer: TaskTrainer, starts: Sequence[Start], arena: Arena, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Let P linear policies play S starts, greedily and all in lockstep.

    Returns are absolute: what paired baselines earn on a start is the same for all policies, so it would cancel when
    they are compared; `relative_accuracy` is therefore the accuracy itself. Nor is the reward smoothed: a moving
    average only moves worth between the rounds of an episode.

    Args:
        trainer: for these starts; it moves to the GPU that this process may use, if any.
        weights: float32 [P, F, 1 + S], of `Selector.weights`.

    Returns:
        float64 [S, P] each, means over the rounds after the first: return, accuracy (which is the AULC),
        soft_accuracy, hard_accuracy, weakest_modality.
    """
    torch.set_num_threads(1)
    simulation = Simulation(trainer.to(torch_device("auto")), arena.protocol)
    count = len(weights)
    simulation.reset(starts, copies=count)
    rows = torch.from_numpy(np.tile(weights, (len(starts), 1, 1))).to(simulation.trainer.device)
    choose = Learned(Selector(arena.policy).with_row_weights(rows), arena.candidates)
    sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(len(rows), dtype=torch.float64))
    for step in simulation.play(choose):
        after = step.after
        outcome = Outcome(step.before, after, simulation.round.weights, torch.zeros_like(after.accuracy))
        values = {
            "return": reward(outcome, arena.reward)[0],
            "accuracy": after.accuracy,
            "soft_accuracy": after.soft_accuracy,
            "hard_accuracy": after.hard_accuracy,
            "weakest_modality": after.modality_accuracy.amin(1),
        }
        for name, value in values.items():
            sums[name] += value.double().cpu()
    return {name: (total / arena.protocol.rounds).numpy().reshape(-1, count) for name, total in sums.items()}


def population_fitness(returns: Sequence[np.ndarray]) -> np.ndarray:
    """How much better than the population each policy is, [P]; larger is better.

    Per start the population's mean is taken off, which removes what the start decides. Per source the result is
    divided by its standard deviation, so that a source on which policies hardly differ counts as much as one on which
    they differ widely. Sources count alike.

    Args:
        returns: [S, P] of each source.
    """
    by_source = []
    for r in returns:
        centred = r - r.mean(1, keepdims=True)
        by_source.append((centred / (centred.std() + _EASE)).mean(0))
    return np.mean(by_source, 0)


def draw_protocol(rng: np.random.Generator, base: ProtocolConfig, pool_rows: int | None = None) -> ProtocolConfig:
    """A protocol from the ranges above whose budget a pool of so many rows can supply; `base` where none is found."""
    for _ in range(_DRAWS):
        batch, initial, rounds = (float(np.exp(rng.uniform(*np.log(r)))) for r in (BATCH_SIZE, INITIAL_BATCHES, ROUNDS))
        labels = max(round(batch * initial), _FEWEST_LABELS)
        protocol = replace(base, initial_labels=labels, batch_size=round(batch), rounds=round(rounds))
        if pool_rows is None or protocol.budget <= pool_rows:
            return protocol
    return base
