"""The paired comparison: every strategy from the same starts, on the same seeds, several at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import ray
from annotated_types import Ge

from envs.errors import ConfigError, StrategyError
from envs.fields import Help, ReadAs, Section
from envs.files import remove_unfinished
from envs.models.base import TaskModelConfig
from envs.models.frozen.trainer import FrozenConfig
from envs.names import is_storable
from envs.pools import Pool
from envs.pools.classes import is_one_line
from envs.pools.partition import Start, evaluation_roles
from envs.reading import first_repeated
from envs.simulation import ProtocolConfig
from envs.source import evaluation_starts, evaluation_trainer
from envs.sources import open_dataset
from evaluation import provenance
from evaluation.playing import call_with_simulation, play_on, rehearse
from evaluation.report.write import write_report, written_in
from evaluation.results import Results, describe_policy, describe_strategy, result_key
from evaluation.runs import Played, Runs, check_pairing
from evaluation.summary import PRETRAINED, Comparison
from learners.run_folder import RunFolder
from policies.policy_file import (
    WEIGHTS_FILE,
    PolicyCard,
    find_policy,
    load_policy,
    pretrained_policy,
    same_weights,
)
from policies.strategies import STRATEGIES, Strategy, get_strategy
from policies.strategies.learned import Learned
from runtime.cluster import local_ray
from runtime.progress import Progress
from runtime.tasks import Workers, in_parallel, remote_task

CHUNK = 10  # seeds in one lockstep; fixed, so that results do not depend on the number of workers
FIRST_SEED = 10_000  # training never uses seeds from here on
DEFAULT_STRATEGIES = ("random", "margin", "entropy", "badge", "hand_tuned")
ALL = "all"  # in place of names: every registered strategy
RESULTS = "results"  # folder of the finished chunks


@dataclass(frozen=True)
class CompareConfig(Section, prefix="compare."):
    """What to compare.

    Raises:
        ConfigError, StrategyError: on a value that cannot be, as soon as the configuration is made.
    """

    datasets: tuple[str, ...]  # names or paths that `open_dataset` takes
    titles: tuple[str, ...] = ()  # what tables call them, one for each; without any, the names that the pools have
    seeds: Annotated[int, Ge(1), Help("paired repetitions")] = 20
    strategies: Annotated[tuple[str, ...], Help("names, or module:function of your own; all: every name")] = (
        DEFAULT_STRATEGIES
    )
    # (name, path); the first, by custom "learned", is judged. "{dataset}" in a path stands for the data set's name.
    policies: tuple[tuple[str, str], ...] = ()
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    model: Annotated[TaskModelConfig, ReadAs(FrozenConfig)] = field(default_factory=FrozenConfig)
    workers: Annotated[int, Ge(1), Help("processes")] = 2
    first_seed: Annotated[int, Ge(0)] = FIRST_SEED

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.datasets:
            raise ConfigError("Nothing to compare on: name at least one data set.")
        if self.titles and len(self.titles) != len(self.datasets):
            raise ConfigError(
                f"compare.titles has {len(self.titles)} names for {len(self.datasets)} data sets; name each, or none."
            )
        if ALL in self.strategies:
            if len(self.strategies) > 1:
                raise ConfigError(f"'{ALL}' stands for every strategy; give it alone, or names without it.")
            object.__setattr__(self, "strategies", tuple(STRATEGIES))  # the dataclass is frozen
        self._check_names()

    def _check_names(self) -> None:
        for name in self.strategies:
            get_strategy(name)
        if not self.names:
            raise ConfigError("Nothing to compare: name at least one strategy or policy.")
        for name in (*self.names, *self.titles):
            if not name.strip() or not is_one_line(name) or not is_storable(name):
                raise ConfigError(f"{name!r} is no name for tables and pictures; write one in a single line.")
        repeated = first_repeated(self.names)
        if repeated is not None:
            raise ConfigError(f"'{repeated}' is named twice; each strategy and policy needs its own name.")

    @property
    def names(self) -> tuple[str, ...]:
        """Policies, then strategies, in the order of the tables."""
        return tuple(name for name, _ in self.policies) + tuple(self.strategies)


@dataclass(frozen=True)
class _Entrant:
    """A participant: a strategy, or a policy with its card."""

    choose: Strategy
    description: dict[str, Any]  # of all that decides its picks
    card: PolicyCard | None = None
    facts: dict[str, Any] | None = None  # of a policy, for the summary


@dataclass(frozen=True)
class _Contest:
    """A data set with the starts that everybody plays."""

    given: str  # how the user named it
    pool: Pool
    entrants: dict[str, _Entrant]
    chunks: list[list[Start]]
    notes: list[str]


@dataclass(frozen=True)
class _Job:
    """One strategy on one chunk of one data set; the numbers count contests and chunks."""

    contest: int
    chunk: int
    name: str


def compare(config: CompareConfig, out: Path | str, progress: Callable[..., None] = print) -> Comparison:
    """Run the comparison and write its report into `out`.

    Test rows score every strategy; what is picked are rows of the evaluation half, which trains no policy. Finished
    chunks of seeds are kept in `out`/results under a hash of all that decides them: run again, after an interruption
    or with more strategies, policies, data sets or seeds, a comparison computes what is missing.

    Args:
        progress: called with a line of text; `print` on a terminal gets one line that is updated.

    Returns:
        what the comparison found, as `write_report` gives it.

    Raises:
        RLMBAError: before any work starts where an input is wrong; later where a strategy fails or runs turn out
            unpaired, or another comparison is at work in `out`.
        KeyboardInterrupt: after the workers were stopped; finished chunks are kept.
    """
    began = time.perf_counter()
    strategies = _enter_strategies(config)
    contests = [
        _arrange(given, pool, config, _enter_policies(config, pool.name) | strategies)
        for given, pool in _open(config).items()
    ]
    out = _make_folder(out)
    for contest in contests:
        for note in contest.notes:
            progress(note)
    folder = RunFolder(out)
    folder.lock()
    try:
        for place in (out, out / RESULTS, *written_in(out)):
            remove_unfinished(place)
        runs = _play_all(config, contests, Results(out / RESULTS, progress), progress)
        for contest_runs in runs:
            check_pairing(contest_runs)
        total = {"seconds_total": round(time.perf_counter() - began, 2)}
        facts = [_facts(config, contest, r) | total for contest, r in zip(contests, runs, strict=True)]
        return write_report(
            [Played(c.pool, config.protocol, r, f) for c, r, f in zip(contests, runs, facts, strict=True)], out
        )
    finally:
        folder.release()


def _enter_policies(config: CompareConfig, dataset: str) -> dict[str, _Entrant]:
    entrants = {}
    for name, path in config.policies:
        folder = find_policy(path.replace("{dataset}", dataset))
        if name == PRETRAINED and not same_weights(folder, pretrained_policy()):
            raise ConfigError(
                f"'{PRETRAINED}' is what the policy that ships is called, and {folder} is another one; give it another "
                "name: --policy NAME=DIR."
            )
        selector, card = load_policy(folder)
        sha256 = provenance.file_hash(folder / WEIGHTS_FILE)
        description = describe_policy(sha256, asdict(selector.config), asdict(card.candidates))
        facts = provenance.describe_card(card, folder, sha256)
        entrants[name] = _Entrant(Learned(selector, card.candidates), description, card, facts)
    return entrants


def _enter_strategies(config: CompareConfig) -> dict[str, _Entrant]:
    chosen = {name: get_strategy(name) for name in config.strategies}
    return {name: _Entrant(strategy, describe_strategy(name, strategy)) for name, strategy in chosen.items()}


def _open(config: CompareConfig) -> dict[str, Pool]:
    """The data sets as the user named them."""
    opened: dict[str, Pool] = {}
    for number, given in enumerate(config.datasets):
        pool = open_dataset(given)
        for other, before in opened.items():
            if before.fingerprint == pool.fingerprint:
                raise ConfigError(f"'{given}' is the same data set as '{other}'; name it once.")
        opened[given] = replace(pool, name=config.titles[number]) if config.titles else pool
    return opened


def _arrange(given: str, pool: Pool, config: CompareConfig, entrants: dict[str, _Entrant]) -> _Contest:
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    rows = len(evaluation_roles(pool, seeds[0]).pool)  # the same for all seeds
    config.protocol.check_budget(rows, f"'{pool.name}' (evaluation half)")
    starts = evaluation_starts(pool, config.protocol, seeds)
    chunks = [starts[low : low + CHUNK] for low in range(0, len(starts), CHUNK)]
    notes = provenance.origin_notes(pool, {name: e.card for name, e in entrants.items() if e.card})
    return _Contest(given, pool, entrants, chunks, notes)


def _make_folder(out: Path | str) -> Path:
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"Cannot write into {out}: {error.strerror}; choose another folder.") from error
    if not os.access(out, os.W_OK):
        raise ConfigError(f"Cannot write into {out}: permission denied; choose another folder.")
    return out


def _play_all(
    config: CompareConfig,
    contests: Sequence[_Contest],
    results: Results,
    progress: Callable[..., None],
) -> list[dict[str, Runs]]:
    """Everybody's runs by contest: those that `results` holds, and the others played, `config.workers` at a time."""
    done: dict[_Job, Runs] = {}
    missing: dict[_Job, str] = {}  # and the key that its result will have
    for number, contest in enumerate(contests):
        for chunk, starts in enumerate(contest.chunks):
            for name, entrant in contest.entrants.items():
                job = _Job(number, chunk, name)
                fingerprint = contest.pool.fingerprint
                key = result_key(fingerprint, starts, config.protocol, config.model, entrant.description)
                runs = results.get(key, starts)
                if runs is None:
                    missing[job] = key
                else:
                    done[job] = runs
    line = Progress(progress, every=0)
    line.count("compare", "chunks", len(done) + len(missing), len(done))

    def keep(job: _Job, runs: Runs) -> None:
        results.put(missing[job], runs)
        done[job] = runs
        line.advance()

    try:
        if missing:
            _play_missing(config, contests, list(missing), keep, line)
        else:
            line.say(f"compare: all {len(done)} chunks were already there")
    finally:
        line.end()
    return [
        {
            name: Runs.join([done[_Job(number, c, name)] for c in range(len(contest.chunks))])
            for name in contest.entrants
        }
        for number, contest in enumerate(contests)
    ]


def _play_missing(
    config: CompareConfig,
    contests: Sequence[_Contest],
    missing: Sequence[_Job],
    keep: Callable[[_Job, Runs], None],
    line: Progress,
) -> None:
    """Play jobs in Ray tasks; first everybody picks one batch on every data set, since a refusal should come early."""
    workers = Workers(min(config.workers, len(missing)))
    if not ray.is_initialized():
        line.say(f"compare: starting {workers.at_once} worker{'s' * (workers.at_once > 1)}")
    with local_ray(workers.at_once, line.say):
        task = remote_task(call_with_simulation)

        @cache
        def trainer(number: int) -> ray.ObjectRef:
            return ray.put(evaluation_trainer(contests[number].pool, config.model))

        def first_batches(number: int) -> ray.ObjectRef:
            names = dict.fromkeys(job.name for job in missing if job.contest == number)
            choosers = {name: contests[number].entrants[name].choose for name in names}
            return task.remote(rehearse, trainer(number), config.protocol, contests[number].chunks[0][0], choosers)

        def runs(job: _Job) -> ray.ObjectRef:
            contest = contests[job.contest]
            starts, choose = contest.chunks[job.chunk], contest.entrants[job.name].choose
            args = config.protocol, contest.given, starts, job.name, choose
            return task.remote(play_on, trainer(job.contest), *args)

        refusals = []
        numbers = dict.fromkeys(job.contest for job in missing)
        with closing(in_parallel(numbers, first_batches, workers, line.tick)) as rehearsed:
            for number, texts in rehearsed:
                refusals += [f"On '{contests[number].given}': {text}" for text in texts]
        if refusals:
            raise StrategyError("\n".join([*refusals, "Leave these out of the strategies or of the data sets."]))
        with closing(in_parallel(missing, runs, workers, line.tick)) as played:
            for job, result in played:
                keep(job, result)


def _facts(config: CompareConfig, contest: _Contest, runs: dict[str, Runs]) -> dict[str, Any]:
    """The facts that somebody needs to run the comparison again."""
    entrants = contest.entrants
    first = next(iter(runs.values()))
    decisive = {
        "dataset": contest.pool.fingerprint,
        "seeds": first.seeds.tolist(),
        "protocol": asdict(config.protocol),
        "model": asdict(config.model),
        "choosers": {n: {k: v for k, v in e.description.items() if k != "code"} for n, e in entrants.items()},
    }
    return {
        "dataset_given": contest.given,
        "protocol": asdict(config.protocol),
        "model": asdict(config.model),
        "first_seed": config.first_seed,
        "dataset_fingerprint": contest.pool.fingerprint,
        "config_hash": provenance.config_hash(decisive),
        "policies": {name: e.facts for name, e in entrants.items() if e.facts},
        "code": {name: e.description["code"] for name, e in entrants.items()},
        "notes": contest.notes,
        "workers": config.workers,
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "pairing": dict(zip(map(str, first.seeds.tolist()), first.starts.tolist(), strict=True)),
    }
