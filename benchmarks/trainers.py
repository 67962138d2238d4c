"""Trainers side by side: what a policy is worth on rows it never saw, against training time and episodes.

    python -m benchmarks.trainers [--dataset emoji] [--algorithms reinforce,ppo,appo,evolution] [--slices 5]
        [--minutes 0.5] [--training-seeds 1] [--out runs/trainers]

Each training runs in slices of `--minutes`; after each the policy is kept and training goes on from its checkpoint. All
kept policies then play in one comparison. Seconds are those of iterations, without start-up and baseline curves.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from pathlib import Path

from benchmarks.commands import run
from evaluation.summary import Summary, read_summary
from policies.policy_file import load_policy
from runtime import markdown


def train(dataset: str, algorithm: str, seed: int, slices: int, minutes: float, out: Path) -> list[Path]:
    """The policies after each slice."""
    kept = [out / f"{algorithm}-{seed}-{i}" for i in range(slices)]
    folder = out / f"{algorithm}-{seed}"
    for i, policy in enumerate(kept):
        if policy.is_dir():
            continue
        begin = ["--dataset", dataset, "--algorithm", algorithm, "--seed", str(seed)]
        begin += ["--set", "learner.iterations=100000"]
        resume = ["--resume"] if i else begin
        run("train", "--out", str(folder), "--minutes", str(minutes), *resume)
        shutil.copytree(folder / "policy", policy)
    return kept


def table(groups: dict[tuple[str, int], list[Path]], summary: Summary) -> str:
    """A row for each algorithm and slice, means over training seeds, in points."""
    badge = summary.strategies["badge"].aulc.mean
    rows = []
    for (algorithm, i), policies in groups.items():
        cards = [load_policy(policy)[1] for policy in policies]
        area = statistics.mean(summary.strategies[policy.name].aulc.mean for policy in policies)
        seconds = statistics.mean(card.training_seconds or 0.0 for card in cards)
        episodes = statistics.mean(card.episodes for card in cards)
        figures = f"{seconds:.0f}", f"{episodes:,.0f}", f"{100 * area:.2f}", f"{100 * (area - badge):+.2f}"
        rows.append([algorithm, i + 1, *figures])
    return markdown.table(["algorithm", "slice", "seconds", "episodes", "AULC", "minus badge"], rows)


def main() -> None:
    """Train what is missing, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="emoji")
    parser.add_argument("--algorithms", default="reinforce,ppo,appo,evolution")
    parser.add_argument("--slices", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--training-seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/trainers"))
    args = parser.parse_args()
    groups: dict[tuple[str, int], list[Path]] = {}
    for algorithm in args.algorithms.split(","):
        for seed in range(args.training_seeds):
            kept = train(args.dataset, algorithm, seed, args.slices, args.minutes, args.out)
            for i, policy in enumerate(kept):
                groups.setdefault((algorithm, i), []).append(policy)
    named = [part for policies in groups.values() for p in policies for part in ("--policy", f"{p.name}={p}")]
    run(
        *["compare", "--dataset", args.dataset, *named, "--strategies", "badge,hand_tuned", "--seeds", "20"],
        *["--out", str(args.out / "comparison")],
    )
    (summary,) = read_summary(args.out / "comparison" / "summary.json").datasets.values()
    print(table(groups, summary))


if __name__ == "__main__":
    main()
