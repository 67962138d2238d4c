"""Pitfalls of multimodal active learning: one modality carries the model, or misleads it. Who mends that?

    python -m benchmarks.pitfalls [--seeds 10] [--pools 2] [--generations 40] [--training-seeds 2] [--out runs/pitfalls]

The pitfalls are those of a benchmark by Eisenhardt et al. (2026, arXiv 2603.29677), and a few that any pool has, as
generated pools of two modalities. Strategies and policies play them from the same starts, policies that were trained
for balance among them beside twins trained by the same recipe with the default reward. Trainings that are complete are
not made again. Tables go to standard output and, with a picture, to --out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.commands import run
from benchmarks.pitfall_tables import Figures, draw, tables
from envs.files import write_text
from envs.models.frozen.trainer import FrozenConfig
from envs.pools import Pool
from envs.round import Round
from envs.simulation import ProtocolConfig, Simulation
from envs.source import evaluation_starts, evaluation_trainer
from envs.sources import open_dataset
from evaluation.comparison import FIRST_SEED
from evaluation.playing import play
from evaluation.runs import Runs, check_pairing
from policies.policy_file import PRETRAINED, load_policy
from policies.strategies import Strategy, get_strategy
from policies.strategies.learned import Learned
from policies.strategies.picking import largest

# What a pool has beside two equal modalities; where one of them has the difficulty, it is the second.
PITFALLS = {
    "shared": "",
    "unique": "unique=1",
    "half synergy": "synergy=0.5",
    "all synergy": "synergy=1",
    "weak": "strength=1.3:0.5",
    "hard": "fragments=1:4",
    "missing": "missing=0.05:0.6",
    "corrupted": "corruption=0:0.5",
    "label noise": "label_noise=0.3",
    "imbalance": "imbalance=10",
    "outliers": "outliers=0.1",
}
TRAINED_ON = ("unique", "half synergy", "weak", "hard", "missing", "corrupted")  # where modalities differ or interact
STRATEGIES = ("random", "margin", "badge", "bait", "typiclust", "bmmal", "bmmal_ce")
REWARDS = {"default": [], "balance": ["reward.weakest_modality=3"]}  # settings of `run.py train`

_ELSE = {"corruption": "0", "missing": "0", "label_noise": "0", "outliers": "0", "imbalance": "1"}
_ABSENT = -2.0  # below any margin


def parameters(pitfall: str, base: dict[str, str]) -> str:
    """The text of a pitfall's parameters over those of `base`."""
    own = dict(part.split("=") for part in filter(None, PITFALLS[pitfall].split(",")))
    return ",".join(f"{name}={value}" for name, value in ({"modalities": "2"} | base | own).items())


def family(pitfall: str) -> str:
    """Pools with this pitfall and no other; classes, samples, dimensions and (unless given) strengths vary."""
    return f"synthetic-family:{parameters(pitfall, _ELSE)}"


def train(reward: str, seed: int, generations: int, folder: Path) -> None:
    """Train a policy with one of `REWARDS`, or go on where it was interrupted."""
    if (folder / "learning_curve.png").is_file():
        return
    resume = ["--resume"] if (folder / "config.yaml").is_file() else []
    settings = [f"evolution.generations={generations}", "evolution.starts=1", *REWARDS[reward]]
    run(
        *["train", "--algorithm", "evolution", "--dataset", ",".join(map(family, TRAINED_ON)), "--minutes", "600"],
        *["--num-env-runners", "0", "--seed", str(seed), "--out", str(folder), *resume],
        *(part for setting in settings for part in ("--set", setting)),
    )


def margin_of(modality: int) -> Strategy:
    """Margin sampling by the head of one modality alone; samples without it come last."""

    def strategy(round_: Round, batch_size: int) -> Tensor:
        alpha = round_.outputs.evidence[:, modality] + 1.0  # of the Dirichlet, whose mean are the probabilities
        top = (alpha / alpha.sum(1, keepdim=True)).mT.topk(2, dim=-1).values
        scores = top[..., 1] - top[..., 0]
        present = round_.outputs.present
        if present is not None:
            scores = scores.masked_fill(~present[:, modality], _ABSENT)
        return largest(scores, round_, batch_size)

    return strategy


def entrants(policies: dict[str, Path]) -> dict[str, Strategy]:
    """Everybody who plays: policies, then strategies."""
    players: dict[str, Strategy] = {}
    for name, folder in policies.items():
        selector, card = load_policy(folder)
        players[name] = Learned(selector, card.candidates)
    players |= {name: get_strategy(name) for name in STRATEGIES}
    return players | {f"margin of m{m} alone": margin_of(m) for m in (0, 1)}


def play_all(pool: Pool, players: dict[str, Strategy], seeds: int, protocol: ProtocolConfig) -> dict[str, Runs]:
    """The paired runs of everybody on one pool."""
    starts = evaluation_starts(pool, protocol, range(FIRST_SEED, FIRST_SEED + seeds))
    simulation = Simulation(evaluation_trainer(pool, FrozenConfig()), protocol)
    runs = {name: play(simulation, starts, name, strategy) for name, strategy in players.items()}
    check_pairing(runs)
    return runs


def measure(
    pitfall: str, players: dict[str, Strategy], pools: int, seeds: int, protocol: ProtocolConfig
) -> dict[str, Figures]:
    """Everybody's figures on the pools of a pitfall."""
    played = []
    for seed in range(pools):
        text = parameters(pitfall, {"strength": "1", "seed": str(seed)})
        played.append(play_all(open_dataset(f"synthetic:{text}"), players, seeds, protocol))
    return {name: Figures.of([(runs[name], runs["random"]) for runs in played]) for name in players}


def main() -> None:
    """Train what is missing, play, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="paired starts on each pool")
    parser.add_argument("--pools", type=int, default=2, help="of each pitfall")
    parser.add_argument("--generations", type=int, default=40)
    parser.add_argument("--training-seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/pitfalls"))
    args = parser.parse_args()
    groups = {reward: [f"{reward}-{seed}" for seed in range(args.training_seeds)] for reward in REWARDS}
    for seed in range(args.training_seeds):
        for reward in REWARDS:
            train(reward, seed, args.generations, args.out / f"{reward}-{seed}")
    torch.set_num_threads(1)
    names = [name for group in groups.values() for name in group]
    players = entrants({"shipped": PRETRAINED} | {name: args.out / name for name in names})
    found = {}
    for pitfall in PITFALLS:
        print(f"playing {pitfall}", file=sys.stderr, flush=True)
        found[pitfall] = measure(pitfall, players, args.pools, args.seeds, ProtocolConfig())
    text = tables(found, groups)
    write_text(args.out / "pitfalls.md", text)
    draw(found, groups, args.out / "pitfalls.png")
    print(text)


if __name__ == "__main__":
    main()
