"""The plan: which sources train policies, which trainings there are, and the settings that decide them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from envs.errors import ConfigError, shorten
from envs.fields import Help, Section, flat
from envs.names import unique_names
from envs.pools import Pool
from envs.pools.partition import evaluation_roles, training_roles
from envs.reading import first_repeated, parse_json, reading
from envs.simulation import ProtocolConfig
from envs.sources import absolute_name, draw_from_family, is_family, open_dataset
from evaluation.comparison import FIRST_SEED, CompareConfig
from learners.run_folder import RunFolder
from learners.settings import TrainConfig
from policies.start import seen_before

STRATEGIES = ("random", "margin", "badge", "bmmal", "hand_tuned")
LEAST_SOURCES = 3  # fewer targets say nothing about the next one
LEARNED = "learned"  # the policies' name in the comparison

_DRAWS = 100  # attempts at a pool of a family, or at halves, that fit


@dataclass(frozen=True)
class LeaveOneOutConfig(Section, prefix="leave_one_out."):
    """What to train and compare.

    Raises:
        ConfigError, StrategyError: on a value that cannot be, as soon as the configuration is made.
    """

    training: TrainConfig  # of each training, but that `datasets` are all sources
    training_seeds: Annotated[int, Ge(1), Help("trainings per target, averaged")] = 2  # where there are no splits
    splits: Annotated[
        int,
        Ge(0),
        Help(
            "train on R random pairs of complementary halves instead, 2R trainings in all; a target's policy averages "
            "the R that did not see it"
        ),
    ] = 0
    seeds: Annotated[int, Ge(1), Help("paired repetitions of the comparison")] = 20
    strategies: Annotated[tuple[str, ...], Help("to compare with")] = STRATEGIES
    budgets: Annotated[
        tuple[str, ...],
        Help("compare at each of these, INITIAL+ROUNDSxBATCH labels, on the data sets that have as many"),
    ] = ()  # none: at the protocol's own

    def __post_init__(self) -> None:
        super().__post_init__()
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
        repeated = first_repeated([protocol.name for protocol in self.protocols])
        if repeated is not None:
            raise ConfigError(f"The budget {repeated} is named twice; name it once.")
        self.comparison(self.training.datasets, self.training.datasets, Path(), self.protocols[0])

    @property
    def protocols(self) -> list[ProtocolConfig]:
        """The protocols that policies are compared by."""
        own = self.training.protocol
        return [own.at(name) for name in self.budgets] or [own]

    def comparison(
        self, datasets: Sequence[str], titles: Sequence[str], policies: Path, protocol: ProtocolConfig
    ) -> CompareConfig:
        """The comparison on all targets by a protocol; `policies` holds a folder for each."""
        return CompareConfig(
            datasets=tuple(datasets),
            titles=tuple(titles),
            seeds=self.seeds,
            strategies=self.strategies,
            policies=((LEARNED, str(policies / "{dataset}")),),
            protocol=protocol,
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
    rows: int  # of its evaluation half, that may be labelled

    def to_json(self) -> dict[str, str]:
        """The entry of plan.json; the rows follow from the pool."""
        return {name: value for name, value in asdict(self).items() if name != "rows"}


@dataclass(frozen=True)
class Training:
    """One training run."""

    name: str
    sources: tuple[str, ...]  # names of those that it sees
    seed: int


@dataclass(frozen=True)
class Plan:
    """All that decides the policies."""

    config: LeaveOneOutConfig
    sources: list[Source]
    trainings: list[Training]

    @property
    def training_seeds(self) -> int | None:
        """Trainings for each target; None where halves of the sources train."""
        return None if self.config.splits else self.config.training_seeds

    def unseen(self, target: Source) -> list[str]:
        """The names of the trainings that do not see the target."""
        return [training.name for training in self.trainings if target.name not in training.sources]

    def targets(self, protocol: ProtocolConfig) -> list[Source]:
        """The sources that can supply a protocol's budget."""
        return [source for source in self.sources if source.rows >= protocol.budget]

    def to_json(self) -> dict[str, Any]:
        """The content of plan.json."""
        elsewhere = ("datasets", "resources")  # among the sources; how many processes there are decides nothing
        plan = {
            "sources": [source.to_json() for source in self.sources],
            "splits": self.config.splits,
            "training_seeds": self.training_seeds,
            "training": {k: v for k, v in asdict(self.config.training).items() if k not in elsewhere},
            "trainings": [asdict(training) for training in self.trainings],
        }
        return json.loads(json.dumps(plan))

    def record(self, folder: RunFolder) -> None:
        """Write plan.json into a vacant folder.

        Raises:
            ConfigError: where the folder holds another plan, or something else.
        """
        file = folder.root / "plan.json"
        if file.exists():
            _check_same(self.to_json(), file)
        elif folder.is_vacant():
            folder.write_text(file, json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n")
        else:
            raise ConfigError(f"{folder.root} is not empty and holds no plan.json; choose another --out.")


def _check_same(plan: dict[str, Any], file: Path) -> None:
    """Raise ConfigError, with the first difference, where a plan.json holds another plan."""
    with reading(file, "cannot be read ({reason}); choose another --out", ConfigError):
        before = flat(parse_json(file.read_text("utf-8")), lists=True)
    now = flat(plan, lists=True)
    for name in [*now, *before]:
        if name not in before or name not in now or before[name] != now[name]:
            there, here = (shorten(p[name]) if name in p else "not there" for p in (before, now))
            raise ConfigError(
                f"{file.parent} was begun with another plan: {name} is {there} in its plan.json and {here} in this "
                "command; give the same settings to go on, or choose another --out."
            )


def make_plan(config: LeaveOneOutConfig) -> Plan:
    """Open every source and draw the trainings."""
    sources = name_sources(config.training.datasets, config.training.protocol)
    _check_unseen(sources, seen_before(config.training.policy))
    names = [source.name for source in sources]
    trainings = plan_trainings(names, config.training.seed, config.training_seeds, config.splits)
    plan = Plan(config, sources, trainings)
    for protocol in config.protocols:
        if not plan.targets(protocol):
            raise ConfigError(
                f"No data set can supply the budget {protocol.name}, {protocol.budget} labels: the largest evaluation "
                f"half has {max(source.rows for source in sources)} rows to choose from. Name a larger data set, or "
                "leave this budget out."
            )
    return plan


def _check_unseen(sources: Sequence[Source], seen: Sequence[Mapping[str, Any]]) -> None:
    """Raise ConfigError where the policy that trainings start from has seen a target."""
    fingerprints = {source.get("fingerprint") for source in seen} - {""}
    drawn = any(not source.get("fingerprint") for source in seen)
    known = [s.name for s in sources if s.fingerprint in fingerprints or (drawn and is_family(s.trains))]
    if known:
        raise ConfigError(
            f"policy.initial is 'pretrained', and the policy that ships has seen {', '.join(known)}: no result on what "
            "it has seen is one on data that is new. Set policy.initial=badge, or leave these data sets away."
        )


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
            protocol.check_budget(len(training_roles(pool, 0).pool), f"'{pool.name}' (half of it trains policies)")
        rows = _check_evaluation(pool, protocol)
        for other, source in zip(datasets, sources, strict=False):
            if source.fingerprint == pool.fingerprint:
                raise ConfigError(f"'{given}' is the same data set as '{other}'; name it once.")
        sources.append(Source(_plain_name(trains, pool), trains, evaluates, pool.fingerprint, rows))
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


def _check_evaluation(pool: Pool, protocol: ProtocolConfig) -> int:
    """Refuse an evaluation half that cannot supply the budget; how many of its rows may be labelled."""
    rows = len(evaluation_roles(pool, FIRST_SEED).pool)
    protocol.check_budget(rows, f"'{pool.name}' (evaluation half)")
    return rows


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
