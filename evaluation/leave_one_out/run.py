"""Policies for data that they never saw: trained on other sources, compared on the one that was left out.

out/plan.json                 sources, trainings and settings; decides whether a command goes on or is refused
out/training/<name>/          a run folder for each training, with a mark once it ended by itself
out/policies/<target>/        the average of all policies whose training did not see the target
out/policy/                   the average of all policies
out/comparison/               every target's policy against fixed strategies, as `compare` writes it
out/leave_one_out.json, .md   what follows from it
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from envs.errors import ConfigError
from envs.pools.partition import evaluation_roles, training_roles
from envs.pools.pool import Pool
from envs.simulation import ProtocolConfig
from envs.sources import absolute_name, draw_from_family, is_family, open_dataset
from evaluation.comparison import FIRST_SEED, CompareConfig, compare
from evaluation.leave_one_out.table import judge_targets, markdown
from evaluation.summary import unique_names
from learners.run_folder import RunFolder
from learners.settings import TrainConfig, flat
from learners.training import train
from policies.averaging import average_policies
from policies.selector import PolicyCard, Selector, load_policy, save_policy

STRATEGIES = ("random", "margin", "badge", "bmmal", "hand_tuned")
LEAST_SOURCES = 3  # fewer targets say nothing about the next one
LEARNED = "learned"  # the policies' name in the comparison
FINISHED = "finished"  # mark in the folder of a training that ended by itself

_DRAWS = 100  # attempts at a pool of a family, or at halves, that fit


@dataclass(frozen=True)
class LeaveOneOutConfig:
    """What to train and compare.

    Raises:
        ConfigError, StrategyError: on a value that cannot be, as soon as the configuration is made.
    """

    training: TrainConfig  # of each training, but that `datasets` are all sources; its protocol also compares
    training_seeds: int = 2  # trainings for each target, where there are no splits
    splits: int = 0  # R random pairs of complementary halves of the sources, each half a training; 0: none
    seeds: int = 20  # paired repetitions of the comparison
    strategies: tuple[str, ...] = STRATEGIES  # fixed ones

    def __post_init__(self) -> None:
        for name, least in (("training_seeds", 1), ("splits", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if not self.strategies:
            raise ConfigError("Nothing to compare the policies with: name at least one strategy.")
        count = len(self.training.datasets)
        if count < LEAST_SOURCES:
            raise ConfigError(
                f"Leaving one out takes at least {LEAST_SOURCES} data sets, and there {'is' if count == 1 else 'are'} "
                f"{count}: {', '.join(self.training.datasets) or 'none'}; name more."
            )
        if not self.training.policy.only_linear:
            raise ConfigError(
                f"Only linear policies can be averaged, and policy.mlp is {list(self.training.policy.mlp)}; leave it "
                "empty, and policy.linear true."
            )
        self.comparison(self.training.datasets, self.training.datasets, Path())

    def comparison(self, datasets: Sequence[str], titles: Sequence[str], policies: Path) -> CompareConfig:
        """The comparison on all targets; `policies` holds a folder for each."""
        return CompareConfig(
            datasets=tuple(datasets),
            titles=tuple(titles),
            seeds=self.seeds,
            strategies=self.strategies,
            policies=((LEARNED, str(policies / "{dataset}")),),
            protocol=self.training.protocol,
            model=self.training.model,
            workers=max(self.training.resources.num_env_runners, 1),
        )


@dataclass(frozen=True)
class Source:
    """A data set that trains policies and that, left out, is the target."""

    name: str  # of folders and in tables
    trains: str  # what training opens
    evaluates: str  # what the comparison opens: the same, or one pool of a family
    fingerprint: str  # of the pool that is compared on


@dataclass(frozen=True)
class Training:
    """One training run."""

    name: str
    sources: tuple[str, ...]  # names of those that it sees
    seed: int


def leave_one_out(config: LeaveOneOutConfig, out: Path | str, progress: Callable[..., None] = print) -> dict[str, Any]:
    """Train, average and compare; what is finished in `out` is not done again.

    Args:
        progress: called with a line of text, as by `compare`.

    Returns:
        the content of leave_one_out.json.

    Raises:
        RLMBAError: on bad settings or data, before any work starts; where `out` holds another plan.
        KeyboardInterrupt: at Ctrl-C or SIGTERM, after the generation that trains; finished work is kept.
    """
    sources = name_sources(config.training.datasets, config.training.protocol)
    names = [source.name for source in sources]
    trainings = plan_trainings(names, config.training.seed, config.training_seeds, config.splits)
    folder = RunFolder(out)
    try:
        folder.lock()
        try:
            _record_plan(folder, _describe(config, sources, trainings))
            return _work(config, folder, sources, trainings, progress)
        finally:
            folder.release()
    except OSError as error:
        place = error.filename or out
        raise ConfigError(f"Cannot write {place}: {error.strerror}; choose another --out.") from error


def _work(
    config: LeaveOneOutConfig,
    folder: RunFolder,
    sources: Sequence[Source],
    trainings: Sequence[Training],
    progress: Callable[..., None],
) -> dict[str, Any]:
    runs = {training.name: folder.root / "training" / training.name for training in trainings}
    opens = {source.name: source.trains for source in sources}
    for number, training in enumerate(trainings, 1):
        text = f"leave-one-out: training {number} of {len(trainings)}, {training.name}"
        if (runs[training.name] / FINISHED).exists():
            progress(f"{text}: already there")
            continue
        progress(f"{text}: on {', '.join(training.sources)}")
        datasets = tuple(opens[name] for name in training.sources)
        _train(replace(config.training, datasets=datasets, seed=training.seed), runs[training.name])

    policies, cards, unseen = folder.root / "policies", {}, {}
    for source in sources:
        unseen[source.name] = [training.name for training in trainings if source.name not in training.sources]
        selector, cards[source.name] = _average([runs[name] for name in unseen[source.name]])
        save_policy(selector, cards[source.name], policies / source.name)
    save_policy(*_average(list(runs.values())), folder.policy)

    settings = config.comparison([s.evaluates for s in sources], [s.name for s in sources], policies)
    summary = compare(settings, folder.root / "comparison", progress)
    result = {"splits": config.splits, "training_seeds": None if config.splits else config.training_seeds}
    result |= judge_targets(summary["datasets"])
    for source in sources:
        result["targets"][source.name] |= {
            "evaluated_on": source.evaluates,
            "drawn_from": source.trains if is_family(source.trains) else None,
            "policies_averaged": unseen[source.name],
            "labels_used": cards[source.name].labels_used,
        }
    folder.write_text(folder.root / "leave_one_out.md", markdown(result))
    content = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
    folder.write_text(folder.root / "leave_one_out.json", content + "\n")
    return result


# The plan


def name_sources(datasets: Sequence[str], protocol: ProtocolConfig) -> list[Source]:
    """Open every source, give it a unique name that can be a folder's, and draw a pool from each family.

    Raises:
        ConfigError, DataError: where a source cannot be opened, occurs twice, or cannot supply the budget.
    """
    sources: list[Source] = []
    for given in datasets:
        trains = absolute_name(given)
        if is_family(trains):
            evaluates, pool = _draw_pool(trains, protocol)
        else:
            evaluates, pool = trains, open_dataset(given)
            rows = len(training_roles(pool, 0).pool)
            protocol.check_budget(rows, f"'{pool.name}' (half of it trains policies)")
        _check_evaluation(pool, protocol)
        for other, source in zip(datasets, sources, strict=False):
            if source.fingerprint == pool.fingerprint:
                raise ConfigError(f"'{given}' is the same data set as '{other}'; name it once.")
        sources.append(Source(_plain_name(trains, pool), trains, evaluates, pool.fingerprint))
    names = unique_names([source.name for source in sources])
    return [replace(source, name=name) for source, name in zip(sources, names, strict=True)]


def _draw_pool(family: str, protocol: ProtocolConfig) -> tuple[str, Pool]:
    """A pool of a family, always the same one, whose evaluation half can supply the budget."""
    rng = np.random.default_rng([FIRST_SEED, *family.encode()])  # no seed of a training
    for left in reversed(range(_DRAWS)):
        name = draw_from_family(family, rng)
        pool = open_dataset(name)
        try:
            _check_evaluation(pool, protocol)
            break
        except ConfigError:
            if not left:
                raise
    return name, pool


def _check_evaluation(pool: Pool, protocol: ProtocolConfig) -> None:
    protocol.check_budget(len(evaluation_roles(pool, FIRST_SEED).pool), f"'{pool.name}' (evaluation half)")


def _plain_name(trains: str, pool: Pool) -> str:
    """The pool's own name, fit for a folder; of a family its parameters, as in "family-label_noise"."""
    if is_family(trains):
        parameters = re.findall(r"(\w+)=", trains)
        return "-".join(["family", *(p for p in parameters if p != "seed")])
    if pool.source == "generated":
        return f"{pool.name}-pool"  # the generator gives all of its pools one name
    return re.sub(r"[^\w=.-]+", "_", pool.name).strip("._")[:80] or "unnamed"


def plan_trainings(names: Sequence[str], seed: int, training_seeds: int, splits: int) -> list[Training]:
    """The trainings, by the names of the sources.

    Without splits: for each target so many on all others. With R splits: two on the halves of each, which are
    complementary and, where there are enough, differ from split to split. Sources in exactly R halves each.

    Args:
        seed: of the first training; decides the halves, too.
    """
    if not splits:
        return [
            Training(f"without-{target}-seed{s}", tuple(n for n in names if n != target), s)
            for target in names
            for s in range(seed, seed + training_seeds)
        ]
    rng = np.random.default_rng(seed)
    trainings: list[Training] = []
    seen: set[frozenset[int]] = set()
    for split in range(splits):
        for _ in range(_DRAWS):
            chosen = rng.permutation(len(names))[: len(names) // 2].tolist()
            half, other = frozenset(chosen), frozenset(range(len(names))) - set(chosen)
            if half not in seen and other not in seen:
                break
        seen.add(half)
        for side, members in (("a", half), ("b", other)):
            picked = tuple(names[i] for i in sorted(members))
            trainings.append(Training(f"split{split}-{side}", picked, seed + len(trainings)))
    return trainings


def _describe(config: LeaveOneOutConfig, sources: Sequence[Source], trainings: Sequence[Training]) -> dict[str, Any]:
    """The content of plan.json: all that decides the policies."""
    elsewhere = ("datasets", "resources")  # among the sources; how many processes there are decides nothing
    plan = {
        "sources": [asdict(source) for source in sources],
        "splits": config.splits,
        "training_seeds": None if config.splits else config.training_seeds,
        "training": {k: v for k, v in asdict(config.training).items() if k not in elsewhere},
        "trainings": [asdict(training) for training in trainings],
    }
    return json.loads(json.dumps(plan))


def _record_plan(folder: RunFolder, plan: dict[str, Any]) -> None:
    """Write the plan into a vacant folder; refuse a folder with another plan or with something else."""
    file = folder.root / "plan.json"
    if not file.exists():
        if not folder.is_vacant():
            raise ConfigError(f"{folder.root} is not empty and holds no plan.json; choose another --out.")
        folder.write_text(file, json.dumps(plan, indent=2, ensure_ascii=False) + "\n")
        return
    try:
        before = flat(json.loads(file.read_text(encoding="utf-8")), lists=True)
    except ValueError as error:
        raise ConfigError(f"{file} cannot be read ({error}); choose another --out.") from None
    now = flat(plan, lists=True)
    for name in [*now, *before]:
        if name not in before or name not in now or before[name] != now[name]:
            there, here = (repr(p[name]) if name in p else "not there" for p in (before, now))
            raise ConfigError(
                f"{folder.root} was begun with another plan: {name} is {there} in its plan.json and {here} in this "
                "command; give the same settings to go on, or choose another --out."
            )


# Training


def _train(config: TrainConfig, path: Path) -> None:
    """Train, or go on, until the training ends by itself; its time before an interruption counts."""
    run = RunFolder(path)
    if path.exists() and not run.is_run():
        shutil.rmtree(path)  # killed before its settings were written
    with interruptions() as came:
        left = config.minutes - sum(row["seconds"] for row in run.read_history()) / 60
        if not run.is_run():
            train(config, path)
        elif left > 0:
            train(replace(config, minutes=left), path, resume=True)
        if came():
            raise KeyboardInterrupt
    (path / FINISHED).touch()


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came in the block, even where it was handled: training ends as usual then."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # signals go to the main thread
        return
    ours, pythons = socket.socketpair()
    with ours, pythons:
        ours.setblocking(False)
        pythons.setblocking(False)
        before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)

        def came() -> bool:
            try:
                return bool({signal.SIGINT, signal.SIGTERM} & set(ours.recv(4096)))
            except BlockingIOError:
                return False

        try:
            yield came
        finally:
            signal.set_wakeup_fd(before)


def _average(runs: Sequence[Path]) -> tuple[Selector, PolicyCard]:
    return average_policies(runs) if len(runs) > 1 else load_policy(runs[0])
