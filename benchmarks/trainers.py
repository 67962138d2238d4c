"""Trainers side by side: what training from the policy that ships adds to it, by algorithm and by minutes.

    python -m benchmarks.trainers [--datasets emoji,watch,digits] [--algorithms reinforce,ppo,appo,evolution]
        [--minutes 1,3,10] [--training-seeds 3] [--seeds 20] [--set NAME=VALUE ...] [--out runs/trainers]

Every algorithm trains on each data set alone. At each of the minutes, which count training without start-up and
baseline curves, the policy is kept, and training goes on from its checkpoint. All kept policies, the policy that ships
and BADGE then play the same seeds on rows that training never saw. Intervals are over those seeds, of the mean over the
training seeds.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.commands import run
from evaluation.report.formats import difference
from evaluation.statistics import mean_interval
from evaluation.summary import PRETRAINED
from policies.policy_file import load_policy
from runtime import markdown

REFERENCES = (PRETRAINED, "badge")


def train(dataset: str, algorithm: str, seed: int, minutes: list[float], settings: list[str], out: Path) -> None:
    """Keep the policy at each of the minutes; what is kept is not trained again."""
    folder = out / dataset / f"{algorithm}-{seed}"
    spent = 0.0
    for until in minutes:
        policy = _kept(out / dataset, algorithm, seed, until)
        if not policy.is_dir():
            begin = ["--dataset", dataset, "--algorithm", algorithm, "--seed", str(seed)]
            for setting in ["learner.iterations=100000", "evolution.generations=100000", *settings]:
                begin += ["--set", setting]
            again = ["--resume"] if (folder / "config.yaml").is_file() else begin
            run("train", "--out", str(folder), "--minutes", f"{until - spent:g}", *again)
            shutil.copytree(folder / "policy", policy)
        spent = until


def _kept(folder: Path, algorithm: str, seed: int, minutes: float) -> Path:
    return folder / f"{algorithm}-{seed}-{minutes:g}min"


def areas(rounds: Path, dataset: str, strategy: str) -> np.ndarray:
    """AULC [seeds] of a strategy, from a comparison's rounds.parquet."""
    rows = pq.read_table(rounds, columns=["dataset", "strategy", "seed", "round", "accuracy"])
    played = (pc.field("dataset") == dataset) & (pc.field("strategy") == strategy) & (pc.field("round") > 0)
    by_seed = rows.filter(played).group_by("seed").aggregate([("accuracy", "mean")]).sort_by("seed")
    return by_seed["accuracy_mean"].to_numpy()


def table(out: Path, datasets: list[str], algorithms: list[str], minutes: list[float], seeds: int) -> str:
    """A row for each algorithm and time, in points, means over training seeds."""
    rounds = out / "comparison" / "rounds.parquet"
    rows = []
    for algorithm in algorithms:
        for until in minutes:
            cells: list[str] = []
            for dataset in datasets:
                policies = [_kept(out / dataset, algorithm, seed, until) for seed in range(seeds)]
                mean = np.mean([areas(rounds, dataset, policy.name) for policy in policies], 0)
                episodes = np.mean([load_policy(policy)[1].episodes for policy in policies])
                cells.append(f"{episodes:,.0f}")
                cells += [difference(mean_interval(mean - areas(rounds, dataset, other))) for other in REFERENCES]
            rows.append([algorithm, f"{until:g}", *cells])
    titles = [f"{d}: {what}" for d in datasets for what in ("episodes", *(f"minus {other}" for other in REFERENCES))]
    return markdown.table(["algorithm", "minutes", *titles], rows)


def main() -> None:
    """Train what is missing, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", default="emoji,watch,digits")
    parser.add_argument("--algorithms", default="reinforce,ppo,appo,evolution")
    parser.add_argument("--minutes", default="1,3,10", help="in all, rising")
    parser.add_argument("--training-seeds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=20, help="of the comparison")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of train")
    parser.add_argument("--out", type=Path, default=Path("runs/trainers"))
    args = parser.parse_args()
    datasets, algorithms = args.datasets.split(","), args.algorithms.split(",")
    minutes = sorted(map(float, args.minutes.split(",")))
    names = []
    for algorithm in algorithms:
        for seed in range(args.training_seeds):
            for dataset in datasets:
                train(dataset, algorithm, seed, minutes, args.set, args.out)
            names += [_kept(args.out, algorithm, seed, until).name for until in minutes]
    policies = [part for name in names for part in ("--policy", f"{name}={args.out}/{{dataset}}/{name}")]
    run(
        *["compare", "--dataset", ",".join(datasets), *policies, "--strategies", "badge", "--seeds", str(args.seeds)],
        *["--out", str(args.out / "comparison")],
    )
    print(table(args.out, datasets, algorithms, minutes, args.training_seeds))


if __name__ == "__main__":
    main()
