"""The README's table: train the policies on each bundled set, compare them with every strategy, print Markdown.

    python -m benchmarks.published [--out runs/published] [--datasets emoji watch digits] [--seeds 20]

Policies: the default, RL-MBA as published (`paper`), and its two ablations. Each training run may take ten minutes on
two cores; folders that are complete are not made again, and the comparison goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.commands import run
from evaluation.report.formats import difference, points
from evaluation.summary import Summary, read_summary
from runtime import markdown

PRESETS = {"learned": "default", "paper": "paper", "paper_amcb": "paper_amcb", "paper_efda": "paper_efda"}


def results(datasets: list[str], out: Path, seeds: int) -> dict[str, Summary]:
    """The comparison's summary for each data set."""
    for dataset in datasets:
        for name, preset in PRESETS.items():
            folder = out / f"{dataset}-{name}"
            if not (folder / "learning_curve.png").is_file():
                # From BADGE: what training on this data alone is worth.
                run(
                    *["train", "--dataset", dataset, "--preset", preset, "--minutes", "10", "--seed", "0"],
                    *["--set", "policy.initial=badge", "--out", str(folder)],
                )
    policies = [part for name in PRESETS for part in ("--policy", f"{name}={out}/{{dataset}}-{name}")]
    compared = out / "comparison"
    run(
        *["compare", "--dataset", ",".join(datasets), *policies, "--strategies", "all", "--seeds", str(seeds)],
        *["--without-pretrained", "--out", str(compared)],
    )
    return read_summary(compared / "summary.json").datasets


def table(summaries: dict[str, Summary]) -> str:
    """AULC of every strategy, and the difference of the learned policy to it, in points."""
    titles = ["strategy", *(title for name in summaries for title in (f"{name}: AULC", "learned minus it"))]
    first = next(iter(summaries.values()))
    rows = [[name, *(cell for s in summaries.values() for cell in _cells(s, name))] for name in first.strategies]
    return markdown.table(titles, rows)


def _cells(summary: Summary, strategy: str) -> tuple[str, str]:
    area, pair = summary.strategies[strategy].aulc, summary.pair("learned", strategy)
    shown = difference(pair)
    clear = pair is not None and pair.ci95 is not None and (pair.ci95[0] > 0 or pair.ci95[1] < 0)
    return points(area), f"**{shown}**" if clear else shown


def main() -> None:
    """Make what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/published"))
    parser.add_argument("--datasets", nargs="+", default=["emoji", "watch", "digits"])
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    print(table(results(args.datasets, args.out, args.seeds)))


if __name__ == "__main__":
    main()
