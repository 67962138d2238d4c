"""A scripted person labels a data set from nothing, by the commands alone, and another one labels at random.

    python -m benchmarks.labelling_person [--dataset emoji] [--seeds 10] [--batch 20] [--rounds 10] [--picture FILE.png]

Both know the true labels. The first fills in the column label of the batches that `ask` writes; the second draws
samples of the same project by lot and hands in a table of its own. After each `tell` the model that `export` writes is
measured on test rows outside the project. The project holds the evaluation half of the data set, on which no policy was
trained. A seed decides the project's measuring rows and the random person's draws.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import run
from envs.pools import Pool
from envs.pools.partition import partition
from envs.sources import open_dataset
from evaluation.statistics import interval
from labelling.model_file import load_model
from runtime import markdown

PEOPLE = {"policy": "asks what to label next", "random": "labels at random"}
_COLOURS = {"policy": "tab:blue", "random": "tab:gray"}


def command(*arguments: str | Path) -> None:
    """One command of run.py, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        status = run.main([str(argument) for argument in arguments])
    if status:
        raise SystemExit(f"run.py {' '.join(map(str, arguments))} ended with status {status}")


def write_samples(folder: Path, pool: Pool, rows: np.ndarray) -> list[str]:
    """Write samples.csv and features of some rows without labels; returns the arguments that `init` takes them by."""
    with open(folder / "samples.csv", "w", encoding="utf-8", newline="") as file:
        groups = rows if pool.group is None else pool.group[rows]
        csv.writer(file).writerows([["id", "group"], *zip(pool.ids[rows], groups, strict=True)])
    arguments = ["--samples", str(folder / "samples.csv")]
    for m, modality in enumerate(pool.modalities):
        if not pool.present[:, m].all():
            raise SystemExit(
                f"{pool.name}: {modality} is missing for some samples; this benchmark wants them complete."
            )
        np.save(folder / f"{modality}.npy", pool.features[modality][rows])
        arguments += ["--features", f"{modality}={folder / f'{modality}.npy'}"]
    return arguments


def fill_in(file: Path, truth: dict[str, str]) -> None:
    """Write the true classes into the column label of a batch."""
    with open(file, encoding="utf-8", newline="") as before:
        rows = list(csv.DictReader(before))
    with open(file, "w", encoding="utf-8", newline="") as after:
        writer = csv.DictWriter(after, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"label": truth[row["id"]]} for row in rows)


def play(person: str, pool: Pool, folder: Path, seed: int, batch: int, rounds: int) -> list[float]:
    """Test accuracy after each round."""
    halves = partition(pool)
    folder.mkdir()
    truth = {i: pool.class_names[label] for i, label in zip(pool.ids.tolist(), pool.labels, strict=True)}
    project = folder / "project"
    samples = write_samples(folder, pool, halves.evaluation)
    command("init", project, *samples, "--budget", str(batch * rounds), "--seed", str(seed))
    order = np.random.default_rng(seed).permutation(pool.ids[halves.evaluation]).tolist()
    test = {modality: x[halves.test] for modality, x in pool.features.items()}
    accuracies = []
    for number in range(rounds):
        if person == "policy":
            command("ask", project, "--batch", str(batch))
            file = project / "batches" / f"batch-{number + 1:04d}.csv"
            fill_in(file, truth)
        else:
            file = folder / f"mine-{number}.csv"
            chosen = order[number * batch : (number + 1) * batch]
            with open(file, "w", encoding="utf-8", newline="") as table:
                csv.writer(table).writerows([["id", "label"], *[[i, truth[i]] for i in chosen]])
        command("tell", project, file)
        command("export", project)
        model = load_model(project / "export" / "model")
        predicted = np.array(model.classes)[model.predict_proba(test).argmax(1)]
        accuracies.append(float((predicted == np.array(pool.class_names)[pool.labels[halves.test]]).mean()))
    return accuracies


def draw(curves: dict[str, np.ndarray], batch: int, title: str, picture: Path) -> None:
    """Mean accuracy with its 95 % interval over the labels given. curves: person -> [S, T]."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for person, values in curves.items():
        labels = batch * np.arange(1, values.shape[1] + 1)
        axes.plot(labels, 100 * values.mean(0), marker="o", markersize=3, color=_COLOURS[person], label=PEOPLE[person])
        if len(values) > 1:
            low, high = np.transpose([interval(column) for column in values.T])
            axes.fill_between(labels, 100 * low, 100 * high, color=_COLOURS[person], alpha=0.2, linewidth=0)
    axes.set(xlabel="labels given", ylabel="test accuracy, %", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(picture, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="emoji")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    pool = open_dataset(args.dataset)
    found: dict[str, list[list[float]]] = {person: [] for person in PEOPLE}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(args.seeds):
            for person in PEOPLE:
                folder = Path(temporary) / f"{person}{seed}"
                found[person].append(play(person, pool, folder, seed, args.batch, args.rounds))
    curves = {person: np.array(values) for person, values in found.items()}
    print(markdown.head(["labels given", "asks", "at random", "difference, paired"], left=()))
    for t in range(args.rounds):
        asks, lot = (100 * values[:, t] for values in curves.values())
        means = f"{asks.mean():.1f}", f"{lot.mean():.1f}"
        print(markdown.row([args.batch * (t + 1), *means, _with_interval(asks - lot)]))
    means = 100 * (curves["policy"].mean(1) - curves["random"].mean(1))
    print(f"\nmean over the rounds: {_with_interval(means)} points, {args.seeds} seeds")
    if args.picture:
        draw(curves, args.batch, f"A person labels {pool.name}: mean of {args.seeds} seeds", args.picture)


def _with_interval(values: np.ndarray) -> str:
    found = interval(values)
    return f"{values.mean():+.2f}" + ("" if found is None else f" [{found[0]:+.2f}, {found[1]:+.2f}]")


if __name__ == "__main__":
    main()
