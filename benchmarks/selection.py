"""Seconds and peak memory that each strategy needs to pick one batch from a large pool, on one core.

    python -m benchmarks.selection [--size small|large] [--strategies a,b] [--limit SECONDS] [--out FILE.md]

small: n = 2,000 unlabelled samples, C = 101 classes, D = 2,816 embedding dimensions (two modalities), b = 100.
large: n = 60,000, C = 101, D = 2,816, b = 1,000.

Every strategy runs in a process of its own on the same round: task models with drawn parameters on drawn features.
The forward pass over the pool, which nearly all share, is done before the clock starts. For `badge` and `bmmal` the
small size is also run with the gradient embeddings written out, by the same sampling with the same draws.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from envs.kmeanspp import Factor, d_squared_sampling, squared_norms
from envs.models.accuracy import Validation
from envs.models.evidence import expected_probabilities
from envs.models.frozen.fitting import Fitted, initial_parameters
from envs.models.frozen.model import FrozenModel, StartRows
from envs.models.frozen.preparation import PreparedPool
from envs.models.frozen.trainer import FrozenConfig
from envs.round import Round
from policies.strategies import STRATEGIES, get_strategy
from policies.strategies.badge import gradient_factor
from policies.strategies.bmmal import gradient_factors
from runtime import markdown
from runtime.memory import with_peak_memory

INPUTS, MODALITIES, HIDDEN, CLASSES, LABELLED = 64, 2, 1408, 101, 1000
WRITTEN_OUT = ("badge", "bmmal")


@dataclass(frozen=True)
class Size:
    """A pool and a batch."""

    samples: int  # unlabelled
    batch: int


SIZES = {"small": Size(2_000, 100), "large": Size(60_000, 1_000)}


def make_round(samples: int, classes: int = CLASSES, hidden: int = HIDDEN) -> Round:
    """A round of one episode with `samples` unlabelled samples and LABELLED labelled ones."""
    generator = torch.Generator().manual_seed(0)
    rows = samples + LABELLED
    centres = torch.randn(classes, MODALITIES * INPUTS, generator=generator)
    labels = torch.randint(classes, (rows,), generator=generator)
    x = torch.ones(MODALITIES, INPUTS + 1, rows)
    noise = torch.randn(rows, MODALITIES * INPUTS, generator=generator)
    x[:, :-1] = (centres[labels] + noise).T.reshape(MODALITIES, INPUTS, rows)
    density = torch.rand(rows, generator=generator)
    names = tuple(f"m{m}" for m in range(MODALITIES))
    data = PreparedPool(np.arange(rows), x, None, labels, density, names, classes)
    initial = initial_parameters([0], MODALITIES, INPUTS, classes, hidden)
    zero, labelled = torch.zeros(1), torch.arange(LABELLED)[None]
    start_rows = StartRows.gather(data, [0], [np.arange(rows)], [np.arange(0)])
    available = torch.ones(1, rows, dtype=torch.bool)
    available[:, :LABELLED] = False
    return Round(
        index=0,
        rounds=10,
        seeds=(0,),
        model=FrozenModel(start_rows, initial, labelled, Fitted(initial, zero, zero), FrozenConfig(hidden=hidden)),
        density=density[None],
        available=available,
        labelled=labelled,
        labels=labels[None, :LABELLED],
        weights=torch.full((1, MODALITIES), 1.0 / MODALITIES),
        validation=Validation(zero, zero, zero, torch.zeros(1, MODALITIES)),
    )


def written_out(name: str, round_: Round, batch: int) -> torch.Tensor:
    """The picks of `badge` or `bmmal` from gradient embeddings [n, C D] in memory."""
    if name == "badge":
        factors = [gradient_factor(round_.outputs)]
    else:
        factors = gradient_factors(round_, expected_probabilities(round_.outputs.evidence + 1.0))
    rows: list[Factor] = []
    for a, z in factors:
        embedding = torch.einsum("ecn,ehn->echn", a, z).flatten(1, 2)
        rows.append((embedding.new_ones(1, 1, embedding.shape[2]), embedding))
    first = squared_norms(rows).masked_fill(~round_.available, -1.0).argmax(1)
    return d_squared_sampling(rows, round_.available, round_.uniforms(name, batch), first)[0]


def measure(name: str, size: Size, embeddings: bool) -> dict[str, float | int]:
    """Seconds by part, peak bytes, and a checksum of the picks; in this process."""
    torch.set_num_threads(1)
    get_strategy(name)(make_round(50, classes=3, hidden=8), 2)  # what only a first call costs
    round_ = make_round(size.samples)
    began = time.perf_counter()
    _ = round_.outputs
    forward = time.perf_counter() - began
    before = dict(round_.stopwatch.seconds)

    def select() -> torch.Tensor:
        return written_out(name, round_, size.batch) if embeddings else get_strategy(name)(round_, size.batch)

    began = time.perf_counter()
    picks, peak = with_peak_memory(select)
    seconds = time.perf_counter() - began
    parts = {kind: value - before[kind] for kind, value in round_.stopwatch.seconds.items()}
    return parts | {"seconds": seconds, "peak": peak, "forward": forward, "picks": hash(tuple(picks[0].tolist()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--limit", type=float, default=900.0, help="seconds after which a strategy is given up")
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a strategy, in this process
    parser.add_argument("--written-out", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    size = SIZES[args.size]
    if args.one:
        print(json.dumps(measure(args.one, size, args.written_out)))
        return
    jobs = [(name, False) for name in args.strategies.split(",")]
    if args.size == "small":
        jobs += [(name, True) for name in WRITTEN_OUT if (name, False) in jobs]
    lines = [
        f"n = {size.samples:,}, C = {CLASSES}, D = {MODALITIES * HIDDEN:,}, b = {size.batch:,}; one core.",
        "",
        markdown.head(["strategy", "seconds", "inference of its own", "scoring", "picking", "peak memory (MiB)"]),
    ]
    print("\n".join(lines), flush=True)
    picks: dict[tuple[str, bool], int] = {}
    for name, embeddings in jobs:
        row, figures = _row(name, embeddings, args)
        lines.append(row)
        print(row, flush=True)
        if figures:
            picks[name, embeddings] = figures["picks"]
    for name in WRITTEN_OUT:
        if (name, True) in picks:
            same = picks[name, True] == picks.get((name, False))
            lines += ["", f"{name}: factorised and written-out picks are {'the same' if same else 'NOT the same'}."]
            print(lines[-1])
    if args.out:
        args.out.write_text("\n".join(lines) + "\n", "utf-8")


def _row(name: str, embeddings: bool, args: argparse.Namespace) -> tuple[str, dict | None]:
    """One line of the table, measured in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.selection", "--size", args.size, "--one", name]
    title = f"{name}, written out" if embeddings else name
    try:
        done = subprocess.run(
            command + ["--written-out"] * embeddings, capture_output=True, text=True, timeout=args.limit
        )
    except subprocess.TimeoutExpired:
        return markdown.row([title, f"not finished in {args.limit:.0f} s", *[""] * 4]), None
    if done.returncode:
        return markdown.row([title, f"failed: {done.stderr.strip().splitlines()[-1]}", *[""] * 4]), None
    f = json.loads(done.stdout.splitlines()[-1])
    scoring = f["seconds"] - f["inference"] - f["picking"]
    parts = [f"{v:.2f}" for v in (f["seconds"], f["inference"], scoring, f["picking"])]
    return markdown.row([title, *parts, f"{f['peak'] / 2**20:,.0f}"]), f


if __name__ == "__main__":
    main()
