"""What the exported policy does: it plays a few episodes, greedily and beside baselines, for TensorBoard to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from envs.files import new_folder
from envs.models.contribution import sample_contributions
from envs.models.evidence import difficulty
from envs.names import unique_names
from envs.pools.partition import Start
from envs.randomness import start_seed
from envs.round import Round
from envs.simulation import Simulation
from envs.source import open_source, training_starts, training_trainer
from learners.telemetry.board import Board
from learners.telemetry.curves import label_curve
from learners.telemetry.projector import Points, pool_points, write_projector
from policies.selector import Selector
from policies.strategies import Strategy, get_strategy
from policies.strategies.learned import Learned

if TYPE_CHECKING:
    from learners.settings import TrainConfig

STARTS = 4  # episodes per source, with starts that training did not draw
SOURCES = 4  # at most; the first ones
PLAYED = f"exported policy, greedy, on reward rows; thin lines: each of {STARTS} starts"


@dataclass(frozen=True)
class Played:
    """Episodes of one strategy: S starts, T rounds of b picks."""

    accuracy: np.ndarray  # [S, T + 1] on the reward rows
    picks: np.ndarray  # int64 [S, T, b] pool positions
    difficulty: np.ndarray  # [T, S * b] U of each pick when it was picked
    contributions: np.ndarray  # [T, M, S * b] of each modality to the probability of its predicted class


def write_exported(config: TrainConfig, selector: Selector, folder: Path) -> None:
    """Play the exported policy on the sources and write events and Projector files into `folder`, all or nothing.

    Tags: learning_curve/<source> (picture), picked_difficulty/<source> and picked_contribution/<source>/<modality>
    (histograms; their step is the number of labels before the picks).

    Args:
        folder: what an earlier run left there is replaced.
    """
    with new_folder(folder, may_replace=lambda _: True) as aside:
        board = Board(aside)
        try:
            write_projector(aside, _show(config, selector, board))
        finally:
            board.close()


def _show(config: TrainConfig, selector: Selector, board: Board) -> list[Points]:
    protocol, gpu = config.protocol, config.resources.num_gpus_per_env_runner and torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    names = dict.fromkeys(("random", *config.reward.baselines))
    strategies = {"policy": Learned(selector.to(device), config.candidates)} | {n: get_strategy(n) for n in names}
    seeds = [start_seed(config.seed, config.starts + number) for number in range(STARTS)]
    labels = [protocol.initial_labels + protocol.batch_size * t for t in range(protocol.rounds + 1)]
    pools = [open_source(n, protocol, np.random.default_rng(config.seed)) for n in config.datasets[:SOURCES]]
    points = []
    for name, pool in zip(unique_names([pool.name for pool in pools]), pools, strict=True):
        simulation = Simulation(training_trainer(pool, config.model, device), protocol)
        starts = training_starts(pool, protocol, seeds)
        played = {n: play(simulation, starts, strategy) for n, strategy in strategies.items()}
        own = played["policy"]
        accuracy = {n: p.accuracy for n, p in played.items()}
        board.picture(f"learning_curve/{name}", label_curve(labels, accuracy, name, PLAYED), labels[-1])
        for t, before in enumerate(labels[:-1]):
            values = {f"picked_difficulty/{name}": own.difficulty[t]}
            contributions = zip(pool.modalities, own.contributions[t], strict=True)
            values |= {f"picked_contribution/{name}/{modality}": value for modality, value in contributions}
            board.histograms(before, values)
        points.append(pool_points(name, pool, simulation.round.model.inputs()[0], starts[0], own.picks[0]))
    return points


def play(simulation: Simulation, starts: Sequence[Start], strategy: Strategy) -> Played:
    """Let a strategy play the starts."""
    simulation.reset(starts)
    accuracy, picks, described = [simulation.measure().accuracy], [], []
    for step in simulation.play(strategy):
        picks.append(step.picks)
        described.append(_describe(step.round, step.picks))
        accuracy.append(step.after.accuracy)
    u, contributions = (torch.stack(values).cpu() for values in zip(*described, strict=True))
    return Played(
        accuracy=torch.stack(accuracy, 1).cpu().numpy(),
        picks=torch.stack(picks, 1).cpu().numpy(),
        difficulty=u.flatten(1).numpy(),
        contributions=contributions.transpose(1, 2).flatten(2).numpy(),
    )


def _describe(round_: Round, picked: Tensor) -> tuple[Tensor, Tensor]:
    """Difficulty U [S, b] of these positions, and each modality's contributions [S, M, b]."""
    outputs = round_.outputs_at(picked)
    head = round_.model.head
    return difficulty(round_.fused(outputs)), sample_contributions(head, outputs.hidden, outputs.logits.argmax(1))
