"""Does choosing among strategies on the target itself, by what its labels show, beat the policy that ships?

    python -m benchmarks.online_adaptation --dataset a.npz,b.npz [--arms learned,least_confidence,typiclust,bait]
        [--seeds 20] [--jobs 2] [--out runs/online_adaptation]

Each episode runs a bandit of its own over the arms: in every round one arm picks the whole batch, and its reward is
what the batch added to the accuracy on validation rows, minus the mean over the episode so far. "bandit" is Exp3 (Auer
et al. 2002, without the uniform part) over all arms; "bandit from learned" begins at the policy that ships with odds of
nine to one; "lot" draws the arm evenly, which shows what mixing alone does. The arms themselves play the same starts.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from envs.models.frozen.trainer import FrozenConfig
from envs.round import Round
from envs.simulation import ProtocolConfig, Simulation
from envs.source import evaluation_starts, evaluation_trainer
from envs.sources import open_dataset, split_names
from evaluation.comparison import FIRST_SEED
from evaluation.playing import play
from evaluation.report.formats import difference
from evaluation.statistics import aulc, mean_interval
from policies.policy_file import load_policy, pretrained_policy
from policies.strategies import Strategy, get_strategy
from policies.strategies.learned import Learned
from runtime import markdown

RATE = 20.0  # of Exp3, per unit of accuracy: a batch 5 points better than usual multiplies an arm's odds by e
CHUNK = 5  # seeds that play in one lockstep


class Bandit:
    """Exp3 over strategies, one bandit per episode.

    Args:
        arms: the strategies.
        odds: [A] weights at the start.
        rate: how fast rewards change them; 0 leaves them.
    """

    _log_odds: Tensor  # [E, A], and so of the episodes under way is what follows
    _first: Tensor  # [E] accuracy before the first batch
    _before: Tensor  # [E] accuracy before the last one
    _drawn: Tensor  # int64 [E] arms that picked it

    def __init__(self, arms: list[Strategy], odds: list[float], rate: float):
        self.arms, self.rate = arms, rate
        self._initial = torch.tensor(odds, dtype=torch.float64).log()

    def __call__(self, round_: Round, batch_size: int) -> Tensor:
        """Picks [E, b] of the arm that each episode draws."""
        accuracy = round_.validation.accuracy.double()
        if round_.index == 0:
            self._log_odds = self._initial.repeat(round_.episodes, 1)
            self._first = accuracy
        else:
            usual = (accuracy - self._first) / round_.index  # of a batch, so far
            reward = (accuracy - self._before) - usual
            chance = self._log_odds.softmax(1).gather(1, self._drawn[:, None])[:, 0]
            self._log_odds[torch.arange(round_.episodes), self._drawn] += self.rate * reward / chance.clamp_min(0.1)
        self._before = accuracy
        below = self._log_odds.softmax(1).cumsum(1) < round_.uniforms("arm", 1).double()
        self._drawn = below.sum(1).clamp_max(len(self.arms) - 1)
        picks = torch.stack([arm(round_, batch_size) for arm in self.arms], 1)  # [E, A, b]
        return picks[torch.arange(round_.episodes), self._drawn]


def chooser(name: str, arms: list[str]) -> Strategy:
    """A strategy, the policy that ships, or one of the bandits over `arms`."""
    if name == "learned":
        selector, card = load_policy(pretrained_policy())
        return Learned(selector, card.candidates)
    rules = {"bandit": RATE, "bandit from learned": RATE, "lot": 0.0}
    if name not in rules:
        return get_strategy(name)
    odds = [9.0 * (len(arms) - 1) if name == "bandit from learned" and arm == "learned" else 1.0 for arm in arms]
    return Bandit([chooser(arm, arms) for arm in arms], odds, rules[name])


def areas(dataset: str, name: str, arms: list[str], seeds: list[int]) -> list[float]:
    """AULC of some seeds, in points."""
    torch.set_num_threads(1)
    pool, protocol = open_dataset(dataset), ProtocolConfig()
    simulation = Simulation(evaluation_trainer(pool, FrozenConfig()), protocol)
    runs = play(simulation, evaluation_starts(pool, protocol, seeds), name, chooser(name, arms))
    return (100 * aulc(runs.accuracy)).tolist()


def main() -> None:
    """Play, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, metavar="PATH,...")
    parser.add_argument("--arms", default="learned,least_confidence,typiclust,bait")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/online_adaptation"))
    args = parser.parse_args()
    arms = args.arms.split(",")
    names = [*arms, "lot", "bandit", "bandit from learned"]
    datasets = split_names(args.dataset)
    seeds = [FIRST_SEED + i for i in range(args.seeds)]  # those of `run.py compare`
    chunks = [seeds[low : low + CHUNK] for low in range(0, args.seeds, CHUNK)]
    with ProcessPoolExecutor(args.jobs) as workers:
        playing = {
            (dataset, name): [workers.submit(areas, dataset, name, arms, seeds) for seeds in chunks]
            for dataset in datasets
            for name in names
        }
        played = {key: np.array([a for part in parts for a in part.result()]) for key, parts in playing.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    raw = [{"dataset": d, "chooser": n, "aulc": a.round(3).tolist()} for (d, n), a in played.items()]
    (args.out / "areas.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    others = names[1:]
    print(markdown.head(["target", "learned", *(f"{name} − learned" for name in others)]))
    for dataset in datasets:
        base = played[dataset, "learned"]
        differences = [played[dataset, name] - base for name in others]
        shown = [difference(mean_interval(d / 100)) for d in differences]
        print(markdown.row([open_dataset(dataset).name, f"{base.mean():.2f}", *shown]))
    means = [np.mean([(played[d, n] - played[d, "learned"]).mean() for d in datasets]) for n in others]
    learned = np.mean([played[d, "learned"].mean() for d in datasets])
    print(markdown.row(["mean", f"{learned:.2f}", *(f"{mean:+.2f}" for mean in means)]))


if __name__ == "__main__":
    main()
