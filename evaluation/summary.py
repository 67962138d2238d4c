"""What a comparison found, as records: reports read them, and summary.json is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from envs.errors import ConfigError
from envs.names import unique_names
from envs.reading import parse_json, reading, typed
from envs.simulation import ProtocolConfig
from evaluation.statistics import MeanInterval, Pair

REFERENCE = "random"
PRETRAINED = "pretrained"  # the policy that ships, where it plays beside another
_PLACES = {"seconds": "seconds_per_round"}  # of figures that are called otherwise in summary.json
SEPARATOR = "_vs_"  # between two strategies in a key of summary.json; nothing is looked up by such a key


@dataclass(frozen=True)
class Seconds:
    """Medians per round and episode; None where nothing was timed."""

    inference: float | None
    scoring: float | None
    picking: float | None
    train: float | None

    @property
    def selecting(self) -> float | None:
        """The time until the batch is named: inference, scoring and picking."""
        known = [v for v in (self.inference, self.scoring, self.picking) if v is not None]
        return sum(known) if known else None


SECONDS = tuple(f.name for f in fields(Seconds))


@dataclass(frozen=True)
class StrategyFigures:
    """The figures of one strategy on one data set: means over the seeds, and over the rounds after the first."""

    aulc: MeanInterval
    final_accuracy: MeanInterval
    soft_aulc: MeanInterval
    hard_third: MeanInterval  # accuracy on the hardest third of the test rows
    balance: dict[str, float]  # modality -> accuracy of its own head
    shapley: dict[str, float]  # modality -> contribution to accuracy
    modality_gap: float
    class_coverage: float
    seconds: Seconds
    peak_memory: float | None  # bytes

    @property
    def weakest_modality(self) -> float:
        """The least accuracy among the modalities' heads."""
        return min(self.balance.values())


@dataclass(frozen=True)
class Need:
    """The labels that a strategy needs to reach the target, and the share of random's own need that it saves."""

    labels: int | None  # None where the target is not reached
    saved: float | None


@dataclass(frozen=True)
class LabelSaving:
    """The labels that each strategy needs to reach random's final mean accuracy."""

    target: float
    strategies: dict[str, Need]


@dataclass(frozen=True)
class Penalty:
    """The penalty matrix: row beats column; low column averages are good."""

    strategies: list[str]
    matrix: list[list[float]]
    average: dict[str, float]


@dataclass(frozen=True)
class Profile:
    """The share of the starts on which a strategy's error is within each factor of the best one's."""

    factors: list[float]
    share: dict[str, list[float]]


@dataclass(frozen=True)
class Summary:
    """What a comparison found on one data set; accuracies, areas and their differences are fractions of 1."""

    dataset: str
    seeds: int
    protocol: ProtocolConfig
    strategies: dict[str, StrategyFigures]  # policies first, in the order of the tables
    pairs: list[Pair]
    all_labels_accuracy: MeanInterval | None  # of models trained on all labels
    label_saving: LabelSaving | None  # None where random was not played
    round_zero_accuracy: float
    penalty: Penalty | None
    facts: dict[str, Any]  # provenance, as `Played` has it

    @property
    def policies(self) -> dict[str, dict[str, Any]]:
        """The policies' cards; the first policy is the judged one."""
        return self.facts["policies"]

    @property
    def judged(self) -> str | None:
        """The policy that the others are compared with; None without one."""
        return next(iter(self.policies), None)

    @property
    def labels_used(self) -> int | None:
        """Distinct labels that the judged policy's training looked at; None without a policy."""
        return None if self.judged is None else self.policies[self.judged]["labels_used"]

    def pair(self, first: str, second: str) -> Pair | None:
        """The comparison of these two in this order; None where they were not compared."""
        return next((p for p in self.pairs if (p.first, p.second) == (first, second)), None)

    def judged_pairs(self) -> dict[str, Pair]:
        """The pairs that the main table shows, by the strategy that is not the fixed side.

        With a policy: the first one minus each other strategy. Without: each strategy minus random.
        """
        if self.judged is None:
            return {p.first: p for p in self.pairs if p.second == REFERENCE}
        return {p.second: p for p in self.pairs if p.first == self.judged}

    def to_json(self) -> dict[str, Any]:
        """The content of summary.json for one data set."""
        by = self.strategies.items()
        keys = _glued([(p.first, p.second) for p in self.pairs])
        return {
            "dataset": self.dataset,
            "seeds": self.seeds,
            "budget": self.protocol.budget,
            "aulc": {n: f.aulc.to_json() for n, f in by},
            "paired": {keys[p.first, p.second]: p.to_json() for p in self.pairs},
            "balance": {n: f.balance for n, f in by},
            "weakest_modality": {n: f.weakest_modality for n, f in by},
            "modality_gap": {n: f.modality_gap for n, f in by},
            "shapley": {n: f.shapley for n, f in by},
            "labels_used_to_train_policy": self.labels_used,
            "final_accuracy": {n: f.final_accuracy.to_json() for n, f in by},
            "all_labels_accuracy": self.all_labels_accuracy and self.all_labels_accuracy.to_json(),
            "label_saving": self.label_saving and asdict(self.label_saving),
            "soft_aulc": {n: f.soft_aulc.to_json() for n, f in by},
            "hard_third": {n: f.hard_third.to_json() for n, f in by},
            "class_coverage": {n: f.class_coverage for n, f in by},
            "round_zero_accuracy": self.round_zero_accuracy,
            "seconds_per_round": {n: asdict(f.seconds) for n, f in by},
            "peak_memory": {n: f.peak_memory for n, f in by},
            "penalty": self.penalty and asdict(self.penalty),
            **self.facts,
        }


@dataclass(frozen=True)
class Across:
    """What holds over several data sets, for the strategies that were played on all of them."""

    strategies: list[str]
    penalty: Penalty | None
    verdicts: dict[tuple[str, str], dict[str, int]]  # pair -> verdict -> number of data sets
    mean_rank: dict[str, float]
    profile: Profile | None

    def to_json(self) -> dict[str, Any]:
        """The part "across" of summary.json."""
        keys = _glued(list(self.verdicts))
        return {
            "strategies": self.strategies,
            "penalty": self.penalty and asdict(self.penalty),
            "verdicts": {keys[names]: counts for names, counts in self.verdicts.items()},
            "mean_rank": self.mean_rank,
            "profile": self.profile and asdict(self.profile),
        }


@dataclass(frozen=True)
class Comparison:
    """What a whole comparison found."""

    datasets: dict[str, Summary]  # by unique name
    across: Across | None  # None for one data set

    @property
    def penalty(self) -> Penalty | None:
        """The penalties, summed over the data sets."""
        return self.across.penalty if self.across else next(iter(self.datasets.values())).penalty

    def to_json(self) -> dict[str, Any]:
        """The content of summary.json: of one data set its summary, of several all of them and what holds across."""
        if self.across is None:
            return next(iter(self.datasets.values())).to_json()
        return {"datasets": {n: s.to_json() for n, s in self.datasets.items()}, "across": self.across.to_json()}


def compared_pairs(names: Sequence[str], policies: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs that are compared: each policy with each strategy, and the first policy with the others.

    Without a policy, each strategy with random.
    """
    if not policies:
        return [(name, REFERENCE) for name in names if name != REFERENCE] if REFERENCE in names else []
    strategies = [name for name in names if name not in policies]
    pairs = [(policies[0], name) for name in [*strategies, *policies[1:]]]
    return pairs + [(policy, name) for policy in policies[1:] for name in strategies]


def read_summary(file: Path) -> Comparison:
    """The records that a summary.json was made of.

    Raises:
        DataError: where it is missing or damaged.
    """
    with reading(file, "is no readable summary of a comparison: {reason}"):
        return _read_comparison(parse_json(file.read_text(encoding="utf-8")))


def _read_comparison(content: Mapping[str, Any]) -> Comparison:
    if "across" not in content:
        return Comparison({content["dataset"]: _read_data_set(content)}, None)
    datasets = {name: _read_data_set(known) for name, known in content["datasets"].items()}
    across = content["across"]
    pairs = dict.fromkeys((p.first, p.second) for s in datasets.values() for p in s.pairs)
    verdicts = typed(dict[str, dict[str, int]], across["verdicts"])
    own = {name: across[name] for name in ("strategies", "penalty", "mean_rank", "profile")}
    known = typed(Across, own | {"verdicts": {}})
    return Comparison(datasets, replace(known, verdicts=dict(zip(pairs, verdicts.values(), strict=True))))


def _read_data_set(content: Mapping[str, Any]) -> Summary:
    # Keys are not taken apart: a name may hold the separator. Who was compared follows from who took part.
    pairs = zip(compared_pairs([*content["aulc"]], [*content["policies"]]), content["paired"].values(), strict=True)
    same = ("dataset", "seeds", "protocol", "all_labels_accuracy", "label_saving", "round_zero_accuracy", "penalty")
    plain = {name: content[name] for name in same} | {
        "strategies": {name: _strategy(content, name) for name in content["aulc"]},
        "pairs": [row | {"first": first, "second": second} for (first, second), row in pairs],
        "facts": {"policies": typed(dict[str, dict[str, Any]], content["policies"])},
    }
    try:
        summary = typed(Summary, plain)
    except ConfigError as error:  # of the protocol
        raise ValueError(str(error)) from None
    own = summary.to_json()
    return replace(summary, facts={k: v for k, v in content.items() if k not in own or k == "policies"})


def _strategy(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The fields of one strategy's figures, each of which stands in a mapping of its own."""
    return {field.name: content[_PLACES.get(field.name, field.name)][name] for field in fields(StrategyFigures)}


def _glued(pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """A key of summary.json for each pair, unique also where names hold the separator."""
    return dict(zip(pairs, unique_names([SEPARATOR.join(pair) for pair in pairs]), strict=True))
