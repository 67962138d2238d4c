"""What a policy should look at: variants trained alike, several training seeds, judged on data that none of them saw.

    python -m benchmarks.variants --dataset a.npz,b.npz [--variants default,no-density,...] [--training-seeds 3]
        [--generations 20] [--jobs 2] [--out runs/variants]

Every variant trains by evolution on the sources of the policy that ships, "ppo…" by PPO on the bundled ones, "reward-…"
with other weights of the reward's terms. All policies then play in one comparison on `--dataset`, and the table gives
each variant's figures minus those of the first one with the same training seed.
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.commands import run
from benchmarks.pretrained import BUNDLED, FAMILIES
from envs.candidates import DEFAULT_FEATURES, FEATURES, STATE, Feature
from evaluation.statistics import MeanInterval
from evaluation.summary import StrategyFigures, Summary, read_summary
from policies.batch_features import BATCH_FEATURES, DEFAULT_BATCH_FEATURES, BatchFeature
from runtime import markdown

_ALL: list[Feature | type[BatchFeature]] = [*FEATURES.values(), *BATCH_FEATURES.values()]
_DEFAULTS = [feature for feature in _ALL if feature.default]
# Default features by what they tell; the variant "no-…" trains without one group.
GROUPS = {
    group: [feature.name for feature in _DEFAULTS if group in feature.groups]
    for group in dict.fromkeys(group for feature in _DEFAULTS for group in feature.groups)
}
# What a policy is rewarded for beside accuracy: weights of the weakest modality and of the hardest third.
REWARDS = {
    "reward-none": (0.0, 0.0),
    "reward-balance": (1.0, 0.0),
    "reward-hard": (0.0, 1.0),
    "reward-both": (1.0, 1.0),
}
VARIANTS = ("default", "no-state", "whole-state", "neighbours", *(f"no-{group}" for group in GROUPS))


def settings(variant: str) -> list[str]:
    """The settings of `run.py train` that make a variant."""
    if variant in ("default", "ppo"):
        return []
    if variant == "ppo-slow":
        return ["learner.learning_rate=0.01"]
    if variant == "ppo-mlp":
        return ["learner.learning_rate=0.01", "policy.mlp=[32,32]"]
    if variant in REWARDS:
        balance, hard = REWARDS[variant]
        return [f"reward.weakest_modality={balance}", f"reward.hard_third={hard}"]
    if variant == "no-state":
        return ["policy.state=[]"]
    if variant == "whole-state":
        return [f"policy.state=[{','.join(STATE)}]"]
    if variant == "neighbours":
        neighbours = [name for name, feature in FEATURES.items() if "neighbours" in feature.groups]
        return [f"policy.features=[{','.join((*DEFAULT_FEATURES, *neighbours))}]"]
    group = GROUPS[variant.removeprefix("no-")]
    return [
        f"policy.features=[{','.join(f for f in DEFAULT_FEATURES if f not in group)}]",
        f"policy.batch_features=[{','.join(f for f in DEFAULT_BATCH_FEATURES if f not in group)}]",
    ]


def train(variant: str, seed: int, generations: int, folder: Path) -> None:
    """Train one variant, or go on where it was interrupted."""
    if (folder / "learning_curve.png").is_file():
        return
    resume = ["--resume"] if (folder / "config.yaml").is_file() else []
    sources: tuple[str, ...]
    if variant.startswith("ppo"):  # evolution trains linear policies only
        trainer, sources, own = "ppo", BUNDLED, [f"learner.iterations={generations}"]
    else:
        trainer, sources = "evolution", BUNDLED + FAMILIES
        own = [f"evolution.generations={generations}", "evolution.starts=1"]
    # From BADGE: the policy that ships has all default features.
    chosen = ["policy.initial=badge", "evolution.sigma0=0.5", *settings(variant), *own]
    run(
        *["train", "--algorithm", trainer, "--dataset", ",".join(sources), "--minutes", "600"],
        *["--num-env-runners", "0", "--seed", str(seed), "--out", str(folder), *resume],
        *(part for setting in chosen for part in ("--set", setting)),
    )


def table(summaries: list[Summary], variants: list[str], seeds: int) -> str:
    """Per variant: differences to badge and to the first variant, in points, means over targets and training seeds.

    AULC (also for each training seed), and the weakest modality's and the hardest third's accuracy over the rounds.
    """
    first = variants[0]

    def gain(kind: str, variant: str, seed: int, reference: str) -> float:
        figures = [s.strategies for s in summaries]
        return statistics.mean(100 * (_mean(f[f"{variant}-{seed}"], kind) - _mean(f[reference], kind)) for f in figures)

    rows = []
    for variant in variants:
        badge = statistics.mean(gain("aulc", variant, seed, "badge") for seed in range(seeds))
        kinds = {
            kind: [gain(kind, variant, seed, f"{first}-{seed}") for seed in range(seeds)]
            for kind in ("aulc", "weakest_modality", "hard_third")
        }
        mean, weakest, hard = (statistics.mean(differences) for differences in kinds.values())
        rows.append([variant, *(f"{d:+.2f}" for d in (badge, mean, *kinds["aulc"], weakest, hard))])
    each_seed = [f"seed {seed}" for seed in range(seeds)]
    titles = ["variant", "minus badge", f"minus {first}", *each_seed, "weakest modality", "hardest third"]
    return markdown.table(titles, rows)


def _mean(figures: StrategyFigures, kind: str) -> float:
    figure = getattr(figures, kind)
    return figure.mean if isinstance(figure, MeanInterval) else figure


def main() -> None:
    """Train what is missing, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, metavar="PATH,...", help="sets that the sources do not hold")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--training-seeds", type=int, default=3)
    parser.add_argument("--generations", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=20, help="of the comparison")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--out", type=Path, default=Path("runs/variants"))
    args = parser.parse_args()
    variants = args.variants.split(",")
    trainings = [(variant, seed) for seed in range(args.training_seeds) for variant in variants]
    folders = {pair: args.out / f"{pair[0]}-{pair[1]}" for pair in trainings}
    with ThreadPoolExecutor(args.jobs) as pool:
        for done in [pool.submit(train, *pair, args.generations, folder) for pair, folder in folders.items()]:
            done.result()
    named = [part for folder in folders.values() for part in ("--policy", f"{folder.name}={folder}")]
    run(
        *["compare", "--dataset", args.dataset, *named, "--strategies", "badge", "--seeds", str(args.seeds)],
        *["--without-pretrained", "--out", str(args.out / "comparison")],
    )
    comparison = read_summary(args.out / "comparison" / "summary.json")
    print(table([*comparison.datasets.values()], variants, args.training_seeds))


if __name__ == "__main__":
    main()
