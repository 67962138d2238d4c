"""The README's table: train the default and the `paper` policy on each bundled set, compare, print Markdown.

    python -m benchmarks.published [--out runs/published] [--datasets emoji watch digits] [--seeds 20]

Each training run may take ten minutes on two cores; folders that are complete are not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PRESETS = {"learned": "default", "paper": "paper"}


def run(*arguments: str) -> None:
    """Run one command of run.py, shown as a user would type it."""
    print("python run.py " + " ".join(arguments), file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "run.py", *arguments], check=True, stdout=sys.stderr)


def results(dataset: str, out: Path, seeds: int) -> dict[str, Any]:
    """The comparison's summary for one data set."""
    folders = {name: out / f"{dataset}-{name}" for name in PRESETS}
    for name, preset in PRESETS.items():
        if not (folders[name] / "learning_curve.png").is_file():
            run(
                *["train", "--dataset", dataset, "--preset", preset, "--minutes", "10", "--seed", "0"],
                *["--out", str(folders[name])],
            )
    compared = out / f"{dataset}-compare"
    if not (compared / "summary.json").is_file():
        policies = [part for name, folder in folders.items() for part in ("--policy", f"{name}={folder}")]
        run("compare", "--dataset", dataset, *policies, "--seeds", str(seeds), "--out", str(compared))
    return json.loads((compared / "summary.json").read_text(encoding="utf-8"))


def markdown(summaries: dict[str, dict[str, Any]]) -> str:
    """AULC of every strategy, and the difference of the learned policy to it, in points."""
    header = ["strategy"]
    for dataset in summaries:
        header += [f"{dataset}: AULC", "learned minus it", "weakest modality"]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    for strategy in next(iter(summaries.values()))["aulc"]:
        cells = [strategy]
        for summary in summaries.values():
            area, pair = summary["aulc"][strategy], summary["paired"].get(f"learned_vs_{strategy}")
            half = (area["ci95"][1] - area["ci95"][0]) / 2
            cells.append(f"{100 * area['mean']:.2f} ± {100 * half:.2f}")
            difference = ""
            if pair:
                low, high = (100 * v for v in pair["ci95"])
                difference = f"{100 * pair['mean']:+.2f} [{low:+.2f}, {high:+.2f}]"
                difference = f"**{difference}**" if low > 0 or high < 0 else difference
            cells += [difference, f"{100 * summary['weakest_modality'][strategy]:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Make what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/published"))
    parser.add_argument("--datasets", nargs="+", default=["emoji", "watch", "digits"])
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    print(markdown({dataset: results(dataset, args.out, args.seeds) for dataset in args.datasets}))


if __name__ == "__main__":
    main()
