"""A strategy of your own: uncertain samples where the pool is dense (Settles and Craven 2008, "information density").

python -m examples.strategy
python run.py compare --dataset emoji --strategies examples.strategy:dense_doubt,margin,badge --out runs/mine
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.models.base import per_episode
from envs.models.frozen.trainer import FrozenConfig
from envs.round import Round
from envs.simulation import ProtocolConfig, Simulation
from envs.source import evaluation_starts, evaluation_trainer
from envs.sources import open_dataset
from evaluation.playing import play
from policies.strategies import get_strategy
from policies.strategies.contract import check_strategy


def dense_doubt(round_: Round, batch_size: int) -> Tensor:
    """The largest products of doubt (1 - margin) and density; pool positions int64 [E, b]."""
    best, second = round_.outputs.probabilities.topk(2, dim=1).values.unbind(1)  # [E, P] each
    density = per_episode(round_.density, round_.episodes).clamp_min(0.0)  # a start's copies share it
    score = (1.0 - best + second) * density
    return score.masked_fill(~round_.available, -torch.inf).topk(batch_size, dim=1).indices


def main() -> None:
    """Check the contract, then compare with two others from ten equal starts."""
    check_strategy(dense_doubt)
    pool, protocol = open_dataset("emoji"), ProtocolConfig()
    simulation = Simulation(evaluation_trainer(pool, FrozenConfig()), protocol)
    starts = evaluation_starts(pool, protocol, range(10_000, 10_010))
    print(f"accuracy in % with so many labels of {pool.name}, mean of {len(starts)} starts")
    print(" " * 30, *(f"{protocol.initial_labels + n * protocol.batch_size:6d}" for n in range(0, 11, 2)))
    for name in ("examples.strategy:dense_doubt", "random", "badge"):
        runs = play(simulation, starts, name, get_strategy(name))
        print(f"{name:30s}", *(f"{100 * accuracy:6.1f}" for accuracy in runs.accuracy.mean(0)[::2]))


if __name__ == "__main__":
    main()
