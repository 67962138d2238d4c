"""Seconds and peak memory of the labelling commands on large projects.

    python -m benchmarks.labelling_scale [--samples 10000,100000,1000000] [--batch 1000] [--folder runs/labelling_scale]

Samples of two modalities x 512 float32 features, in 20 classes. The commands run one after the other in processes of
their own: init; ask, which covers the pool; tell, which answers the whole batch; ask, by the policy; status. A cell
gives seconds, the most memory that the process had of its own, and in brackets the same with the pages of mapped
feature files, which the system takes back when others need them. The folder takes 8.2 GB of disk for a million samples,
and is deleted afterwards.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from runtime import markdown

MODALITIES, WIDTH, CLASSES = ("image", "text"), 512, 20
BLOCK = 8192  # samples written at a time
POLL_SECONDS = 0.02


def write_samples(folder: Path, samples: int) -> np.ndarray:
    """A table samples.csv and features <modality>.npy; returns the classes, int64 [N]."""
    rng = np.random.default_rng(0)
    classes = rng.integers(CLASSES, size=samples)
    with open(folder / "samples.csv", "w", encoding="utf-8") as file:
        file.write("id,text\n")
        file.writelines(f"s{row},sample number {row}\n" for row in range(samples))
    for modality in MODALITIES:
        centres = 0.5 * rng.standard_normal((CLASSES, WIDTH), dtype=np.float32)
        x = np.lib.format.open_memmap(folder / f"{modality}.npy", "w+", np.float32, (samples, WIDTH))
        for low in range(0, samples, BLOCK):
            own = classes[low : low + BLOCK]
            x[low : low + BLOCK] = centres[own] + rng.standard_normal((len(own), WIDTH), dtype=np.float32)
        x.flush()
    return classes


def measured(*arguments: str) -> tuple[float, float, float]:
    """Seconds, peak own memory and peak resident memory in GB of one command of run.py."""
    began, own = time.perf_counter(), 0.0
    process = subprocess.Popen([sys.executable, "run.py", *arguments], stdout=subprocess.DEVNULL)
    while True:
        own = max(own, _own_memory(process.pid))
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"run.py {' '.join(arguments)} ended with status {process.returncode}")
    return seconds, own, usage.ru_maxrss * 1024 / 1e9


def _own_memory(process: int) -> float:
    """Anonymous resident memory in GB, without pages of mapped files; Linux only."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text("utf-8"))
    return int(found[1]) * 1024 / 1e9 if found else 0.0


def fill_in(file: Path, classes: np.ndarray) -> None:
    """Write the true classes into the column label of a batch."""
    with open(file, encoding="utf-8", newline="") as before:
        rows = list(csv.DictReader(before))
    with open(file, "w", encoding="utf-8", newline="") as after:
        writer = csv.DictWriter(after, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"label": f"class {classes[int(row['id'][1:])]}"} for row in rows)


def measure_size(folder: Path, samples: int, batch: int) -> dict[str, tuple[float, float, float]]:
    """What `measured` says, by command."""
    folder.mkdir(parents=True)
    try:
        classes = write_samples(folder, samples)
        project = str(folder / "project")
        features = [f"--features={modality}={folder / modality}.npy" for modality in MODALITIES]
        file = folder / "project" / "batches" / "batch-0001.csv"
        result = {"init": measured("init", project, f"--samples={folder / 'samples.csv'}", *features)}
        result["ask, first"] = measured("ask", project, f"--batch={batch}")
        fill_in(file, classes)
        result["tell"] = measured("tell", project, str(file))
        result["ask"] = measured("ask", project, f"--batch={batch}")
        result["status"] = measured("status", project)
        return result
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", default="10000,100000,1000000")
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=Path("runs/labelling_scale"))
    args = parser.parse_args()
    if args.folder.exists():
        parser.error(f"{args.folder} exists; choose another --folder")
    header = True
    for samples in map(int, args.samples.split(",")):
        result = measure_size(args.folder, samples, args.batch)
        if header:
            print(markdown.head(["samples", *result], left=()))
            header = False
        cells = [f"{seconds:.1f} s, {own:.1f} GB ({size:.1f})" for seconds, own, size in result.values()]
        print(markdown.row([f"{samples:,}", *cells]), flush=True)


if __name__ == "__main__":
    main()
