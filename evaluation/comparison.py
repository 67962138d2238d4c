"""The paired comparison: every strategy from the same starts, on the same seeds, several at a time."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
import scipy
import torch
from ray.exceptions import RayError, RayTaskError

from envs.errors import ConfigError, PolicyError, RLMBAError
from envs.lockstep import ProtocolConfig, Start, draw_start
from envs.pool import Pool
from envs.preparation import prepare
from envs.roles import evaluation_roles, partition
from envs.sources import open_dataset
from envs.task_model import TaskModelConfig
from evaluation.playing import Runs, check_pairing, play_shared, to_arrays
from evaluation.report import summarise, write_report
from learners.runtime import local_ray
from policies.selector import WEIGHTS_FILE, PolicyCard, find_policy, load_policy
from policies.strategies import Strategy, get_strategy
from policies.strategies.learned import Learned

CHUNK = 10  # seeds in one lockstep; fixed, so that results do not depend on the number of workers
FIRST_SEED = 10_000  # training never uses seeds from here on
DEFAULT_STRATEGIES = ("random", "margin", "entropy", "badge", "hand_tuned")

_TICK = 0.5  # seconds between updates of the progress line


@dataclass(frozen=True)
class CompareConfig:
    """What to compare.

    Raises:
        ConfigError, StrategyError: on a value that cannot be, as soon as the configuration is made.
    """

    dataset: str  # a name or path that `open_dataset` takes
    seeds: int = 20
    strategies: tuple[str, ...] = DEFAULT_STRATEGIES
    policies: tuple[tuple[str, str], ...] = ()  # (name, path); the first, by custom "learned", is judged
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    model: TaskModelConfig = field(default_factory=TaskModelConfig)
    workers: int = 2  # processes
    first_seed: int = FIRST_SEED

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("workers", 1), ("first_seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"compare.{name} is {value!r}; it must be a whole number, at least {least}.")
        for name in self.strategies:
            get_strategy(name)
        if not self.names:
            raise ConfigError("Nothing to compare: name at least one strategy or policy.")
        for name in self.names:
            if self.names.count(name) > 1:
                raise ConfigError(f"'{name}' is named twice; each strategy and policy needs its own name.")

    @property
    def names(self) -> tuple[str, ...]:
        """Policies, then strategies, in the order of the tables."""
        return tuple(name for name, _ in self.policies) + tuple(self.strategies)


@dataclass(frozen=True)
class _Entrant:
    """A policy that takes part."""

    path: Path
    chooser: Learned
    card: PolicyCard


def compare(config: CompareConfig, out: Path | str, progress: Callable[..., None] = print) -> dict[str, Any]:
    """Run the comparison and write its report into `out`.

    Test rows score every strategy; what is picked are rows of the evaluation half, which trains no policy.

    Args:
        progress: called with a line of text; `print` on a terminal gets one line that is updated.

    Returns:
        the summary, as in `out`/summary.json.

    Raises:
        RLMBAError: before any work starts where an input is wrong; later where runs turn out unpaired.
        KeyboardInterrupt: after the workers were stopped; nothing is written then.
    """
    began = time.perf_counter()
    pool = open_dataset(config.dataset)
    entrants = _load_policies(config)
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    rows = len(evaluation_roles(pool, seeds[0]).pool)  # the same for all seeds
    config.protocol.check_budget(rows, f"'{pool.name}' (evaluation half)")
    out = _make_folder(out)
    notes = _origin_notes(pool, entrants)
    for note in notes:
        progress(note)
    starts = [draw_start(evaluation_roles(pool, seed), seed, config.protocol) for seed in seeds]
    chunks = [starts[low : low + CHUNK] for low in range(0, len(starts), CHUNK)]
    parts = partition(pool)
    data = prepare(pool, parts.evaluation, parts.test, config.model.projection_dim)
    choosers: dict[str, Strategy] = {name: e.chooser for name, e in entrants.items()}
    choosers |= {name: get_strategy(name) for name in config.strategies}
    facts = _provenance(config, pool, entrants, notes)
    runs = _play_all(config, to_arrays(data), chunks, choosers, progress)
    check_pairing(runs)
    facts["pairing"] = dict(zip(map(str, seeds), runs[config.names[0]].starts.tolist(), strict=True))
    facts["seconds_total"] = round(time.perf_counter() - began, 2)
    labels_used = next((e.card.labels_used for e in entrants.values()), None)
    summary = summarise(runs, list(entrants), pool, config.protocol, labels_used, facts)
    write_report(summary, runs, pool, config.protocol, out)
    return summary


def _load_policies(config: CompareConfig) -> dict[str, _Entrant]:
    entrants = {}
    for name, path in config.policies:
        selector, card = load_policy(path)
        entrants[name] = _Entrant(find_policy(path), Learned(selector, card.candidates), card)
    return entrants


def _make_folder(out: Path | str) -> Path:
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"Cannot write into {out}: {error.strerror}; choose another folder.") from error
    if not os.access(out, os.W_OK):
        raise ConfigError(f"Cannot write into {out}: permission denied; choose another folder.")
    return out


def _origin_notes(pool: Pool, entrants: dict[str, _Entrant]) -> list[str]:
    """Where each policy comes from, seen from this data set."""
    notes = []
    for name, entrant in entrants.items():
        sources = entrant.card.trained_on
        if any(s.get("fingerprint") == pool.fingerprint for s in sources):
            notes.append(
                f"Policy '{name}' was trained on '{pool.name}'. The comparison runs on rows that its "
                "training never saw: the evaluation half to pick from, the test rows to score."
            )
        elif any(s.get("name") == pool.name for s in sources):
            notes.append(
                f"Policy '{name}' was trained on another version of '{pool.name}' (its fingerprint differs): "
                "rows of this comparison may have been among its training rows."
            )
        elif sources:
            origin = ", ".join(str(s.get("name", "?")) for s in sources)
            notes.append(f"Policy '{name}' was trained on {origin}, not on '{pool.name}'.")
        else:
            notes.append(f"The card of policy '{name}' does not say what it was trained on.")
    return notes


def _play_all(
    config: CompareConfig,
    arrays: dict[str, Any],
    chunks: Sequence[Sequence[Start]],
    choosers: dict[str, Strategy],
    progress: Callable[..., None],
) -> dict[str, Runs]:
    """Every strategy on every chunk, `config.workers` at a time."""
    jobs = [(name, c) for c in range(len(chunks)) for name in choosers]
    workers = min(config.workers, len(jobs))
    line = _Progress(progress, len(jobs))
    running: dict[ray.ObjectRef, tuple[str, int]] = {}
    done: dict[tuple[str, int], Runs] = {}
    if not ray.is_initialized():
        line.say(f"compare: starting {workers} worker{'s' * (workers > 1)}")
    with local_ray(workers):
        try:
            task = ray.remote(num_cpus=1)(play_shared)
            data = ray.put(arrays)
            shared = [ray.put(list(chunk)) for chunk in chunks]
            waiting = jobs[::-1]
            while waiting or running:
                while waiting and len(running) < workers:
                    name, c = waiting.pop()
                    ref = task.remote(data, shared[c], name, choosers[name], config.protocol, config.model)
                    running[ref] = name, c
                finished, _ = ray.wait(list(running), timeout=_TICK)
                for ref in finished:
                    done[running.pop(ref)] = _result(ref)
                line.show(len(done), bool(finished))
        finally:
            line.end()
            for ref in running:
                ray.cancel(ref, force=True)
    return {name: Runs.join([done[name, c] for c in range(len(chunks))]) for name in choosers}


def _result(ref: ray.ObjectRef) -> Runs:
    try:
        return ray.get(ref)
    except RayTaskError as error:
        if isinstance(error.cause, RLMBAError):
            raise error.cause from None
        raise
    except RayError as error:
        first = str(error).strip().splitlines()[0]
        raise RLMBAError(f"A worker process ended early ({first}); try fewer workers.") from error


class _Progress:
    """Chunks done, time passed, time to go: one line on a terminal, else a line per finished chunk."""

    def __init__(self, progress: Callable[..., None], total: int):
        self.progress, self.total = progress, total
        self.began = time.perf_counter()
        self.first = 0, self.began  # chunks finished first, and when: the workers' start is behind them
        self.updates = progress is print and sys.stdout.isatty()
        self.open = False

    def show(self, done: int, advanced: bool) -> None:
        if not (advanced or self.updates):
            return
        now = time.perf_counter()
        text = f"compare: {done}/{self.total} chunks of seeds, {now - self.began:.0f} s"
        if self.first[0] == 0:
            self.first = done, now
        elif self.first[0] < done < self.total:
            pace = (now - self.first[1]) / (done - self.first[0])
            text += f", about {pace * (self.total - done):.0f} s to go"
        self.say(text)

    def say(self, text: str) -> None:
        if self.updates:
            self.progress(f"\r\033[K{text}", end="", flush=True)
            self.open = True
        else:
            self.progress(text)

    def end(self) -> None:
        if self.open:
            self.progress()
            self.open = False


def _provenance(config: CompareConfig, pool: Pool, entrants: dict[str, _Entrant], notes: list[str]) -> dict[str, Any]:
    """Everything that somebody needs who wants to run it again."""
    policies = {
        name: asdict(e.card) | {"path": str(e.path), "weights_sha256": _file_hash(e.path / WEIGHTS_FILE)}
        for name, e in entrants.items()
    }
    # Neither the number of workers nor where a file lies changes a result.
    decisive = asdict(config) | {"workers": None, "policies": None, "dataset": pool.fingerprint}
    decisive["weights"] = {name: p["weights_sha256"] for name, p in policies.items()}
    decisive["candidates"] = {name: p["candidates"] for name, p in policies.items()}
    text = json.dumps(decisive, sort_keys=True, default=str)
    return {
        "protocol": asdict(config.protocol),
        "model": asdict(config.model),
        "first_seed": config.first_seed,
        "dataset_fingerprint": pool.fingerprint,
        "config_hash": hashlib.sha256(text.encode()).hexdigest()[:16],
        "policies": policies,
        "notes": notes,
        "workers": config.workers,
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "torch": torch.__version__,
            "ray": ray.__version__,
            "machine": platform.machine(),
        },
    }


def _file_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}.") from error
