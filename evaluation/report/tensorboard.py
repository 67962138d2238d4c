"""The mean curves as TensorBoard events, one run per strategy, by number of labels."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from envs.files import new_file
from evaluation.runs import Played, Runs
from evaluation.summarise import modality_spread, number_of_labels


def write_board(played: Played, strategy: str, folder: Path) -> None:
    """Write the scalars of one strategy into `folder`; events of an earlier report there are replaced.

    Tags: test/accuracy, test/soft_accuracy, test/hard_third, test/weakest_modality, balance/gap,
    balance/class_coverage, balance/head_<modality>, balance/shapley_<modality>; fractions of 1.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        writer = SummaryWriter(elsewhere)
        for tag, values in _scalars(played.runs[strategy], played.pool.modalities).items():
            for labels, value in zip(number_of_labels(played), values, strict=True):
                writer.add_scalar(tag, float(value), int(labels), walltime=0)  # a step has no time of its own
        writer.close()
        (events,) = Path(elsewhere).iterdir()
        older = [path for path in folder.glob("events.out.tfevents.*") if path.name != events.name]
        with new_file(folder / events.name, durable=False) as aside:  # rounds.parquet has the same figures
            shutil.copyfile(events, aside)
    for path in older:
        path.unlink()


def _scalars(runs: Runs, modalities: tuple[str, ...]) -> dict[str, np.ndarray]:
    weakest, gap = modality_spread(runs)
    scalars = {
        "test/accuracy": runs.accuracy.mean(0),
        "test/soft_accuracy": runs.soft_accuracy.mean(0),
        "test/hard_third": runs.hard_accuracy.mean(0),
        "test/weakest_modality": weakest,
        "balance/gap": gap,
        "balance/class_coverage": runs.class_coverage.mean(0),
    }
    for m, modality in enumerate(modalities):
        scalars[f"balance/head_{modality}"] = runs.modality_accuracy[:, :, m].mean(0)
        scalars[f"balance/shapley_{modality}"] = runs.shapley[:, :, m].mean(0)
    return scalars
