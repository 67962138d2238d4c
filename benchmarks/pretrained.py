"""The policy that ships in policies/pretrained: evolution on sources that anybody can have, averaged over seeds.

    python -m benchmarks.pretrained [--out runs/pretrained] [--policy policies/pretrained]

Sources are the policy halves of the bundled sets and families of generated pools, drawn afresh in every generation.
The card receives the policy's figures on the evaluation halves of the bundled sets. Trainings that are complete are not
made again. For what the policy is worth on data that it never saw, see `run.py leave-one-out` and docs/transfer.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.commands import run
from evaluation.summary import read_summary
from policies.averaging import average_policies
from policies.policy_file import PRETRAINED, save_policy

BUNDLED = ("emoji", "watch", "digits")
FAMILIES = (
    "synthetic-family:label_noise=0",
    "synthetic-family:label_noise=0.3",
    "synthetic-family:imbalance=10",
    "synthetic-family:modalities=3,missing=0.3,corruption=0.3",
)
SEEDS = 20  # of the comparison


def make(out: Path, policy: Path, training_seeds: int, settings: list[str], seeds: int = SEEDS) -> None:
    """Train, average, compare on the bundled sets, write the policy with its figures."""
    folders = [out / f"seed{seed}" for seed in range(training_seeds)]
    if not any(setting.startswith("policy.initial=") for setting in settings):
        # Not from the file that this command replaces, and therefore with wide steps.
        settings = ["policy.initial=badge", "evolution.sigma0=0.5", *settings]
    sets = [part for setting in settings for part in ("--set", setting)]
    for seed, folder in enumerate(folders):
        if not (folder / "learning_curve.png").is_file():
            resume = ["--resume"] if (folder / "config.yaml").is_file() else []
            run(
                *["train", "--algorithm", "evolution", "--dataset", ",".join(BUNDLED + FAMILIES), "--minutes", "600"],
                *["--seed", str(seed), *sets, "--out", str(folder), *resume],
            )
    selector, card = average_policies(folders)
    averaged = save_policy(selector, card, out / "averaged")
    run(
        *["compare", "--dataset", ",".join(BUNDLED), "--policy", str(averaged), "--seeds", str(seeds)],
        *["--strategies", "random,badge", "--without-pretrained", "--out", str(out / "comparison")],
    )
    figures = {
        name: {
            "seeds": seeds,
            "aulc": s.strategies["learned"].aulc.mean,
            "minus_badge": s.judged_pairs()["badge"].mean,
            "minus_random": s.judged_pairs()["random"].mean,
        }
        for name, s in read_summary(out / "comparison" / "summary.json").datasets.items()
    }
    print(f"policy          {save_policy(selector, replace(card, figures=figures), policy)}")


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/pretrained"))
    parser.add_argument("--policy", type=Path, default=PRETRAINED, help="folder that receives the two files")
    parser.add_argument("--training-seeds", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of the comparison that gives the card's figures")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of train")
    args = parser.parse_args()
    settings = ["evolution.generations=60", "evolution.starts=1", *args.set]
    make(args.out, args.policy, args.training_seeds, settings, args.seeds)


if __name__ == "__main__":
    main()
