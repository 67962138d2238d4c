"""Candidate features that depend on the picks made so far in the round, recomputed at every pick.

They are functions of the observation alone and of the picks, never of the policy's weights: no gradient runs
through them, and a learner can replay them for picks that an environment runner made.

A feature is one class here: name, words for people, groups, and how it is computed. To add one of your own, see
`examples/batch_feature.py`: where a configuration names batch features, `module:Class` stands for one of yours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor

from envs.candidates import FAR
from envs.registry import Registry

LOG_LIMITS = (-8.0, 4.0)
BANDWIDTH = 0.2  # of the coverage kernel, in mean squared distances between candidates
REFERENCES = 512  # candidates at most whose coverage counts


class BatchView:
    """K candidates in each of B rows, as an observation shows them, each quantity computed only if a feature asks.

    Args:
        observation: `envs.candidates.offer.Candidates.observation()`, batched.
    """

    def __init__(self, observation: dict[str, Tensor]):
        self.observation = observation
        self._parts: dict[type[BatchFeature], BatchFeature] = {}

    @cached_property
    def valid(self) -> Tensor:  # bool [B, K]
        return self.observation["valid"] > 0

    @cached_property
    def gradient(self) -> Points:
        return Points(self.observation["gradient"].float())

    @cached_property
    def hidden(self) -> Points:
        return Points(self.observation["hidden"].float())

    @cached_property
    def labelled(self) -> Tensor:  # distance to the nearest labelled sample, [B, K]
        return self.observation["labelled_distance"].float()

    @cached_property
    def predicted(self) -> Tensor:  # int64 [B, K]
        return self.observation["predicted"].long()

    def mean(self, values: Tensor) -> Tensor:
        """Mean of values [B, K] over the valid candidates, [B, 1]."""
        return (values * self.valid).sum(1, keepdim=True) / self.valid.sum(1, keepdim=True).clamp_min(1)

    def part(self, kind: type[F]) -> F:
        """The one feature of that kind here, so that others can build on what it computes."""
        if kind not in self._parts:
            self._parts[kind] = kind(self)
        return cast(F, self._parts[kind])

    def add(self, pick: Tensor) -> None:
        """Tell every feature of one pick per row, [B, 1]; what others build on comes before them."""
        for part in self._parts.values():
            part.add(pick)


class Points:
    """Points [B, K, D] and their distances to some of themselves."""

    def __init__(self, at: Tensor):
        self._at = at
        self.norms = at.square().sum(2)  # squared, [B, K]

    def squared_distance(self, index: Tensor) -> Tensor:
        """Squared distance of every point to the points at index [B, b], [B, b, K]."""
        chosen = torch.take_along_dim(self._at, index[..., None], 1)
        product = torch.bmm(chosen, self._at.mT)
        return (self.norms.gather(1, index)[..., None] + self.norms[:, None] - 2.0 * product).clamp_min_(0.0)


class BatchFeature(ABC):
    """One feature of candidates that depends on the picks, followed over a round.

    Args:
        view: the candidates.
    """

    name: ClassVar[str]
    words: ClassVar[tuple[str, str]]  # what people read where it is high, and where it is low
    groups: ClassVar[tuple[str, ...]] = ("batch",)  # what it tells about; benchmarks/variants.py trains without a group
    default: ClassVar[bool] = True  # whether policies look at it unless told otherwise

    def __init__(self, view: BatchView):
        self.view = view
        self.start()

    @abstractmethod
    def start(self) -> None:
        """Prepare for the first pick."""

    @abstractmethod
    def add(self, pick: Tensor) -> None:
        """Take note of one pick per row, [B, 1]."""

    @abstractmethod
    def current(self) -> Tensor:
        """Values for the next pick, [B, K]."""

    def replay(self, earlier: Tensor) -> Tensor:
        """Values at each of b picks, [B, b, K], given those before the last [B, b - 1]; nothing was added yet.

        As it stands one pick after another; a feature that can do all at once is several times as fast.
        """
        view = BatchView(self.view.observation)
        again = view.part(type(self))
        values = [again.current()]
        for j in range(earlier.shape[1]):
            view.add(earlier[:, j : j + 1])
            values.append(again.current())
        return torch.stack(values, 1)


F = TypeVar("F", bound=BatchFeature)


class GradientDistance(BatchFeature):
    """Log of the squared gradient-embedding distance to the picks (this is BADGE)."""

    name = "gradient_distance"
    words = ("unlike the others in this batch", "like the others in this batch")

    def start(self) -> None:
        self._mean_norm = self.view.mean(self.view.gradient.norms).clamp_min(1e-20)
        self._nearest: Tensor | None = None

    def add(self, pick: Tensor) -> None:
        squared = self.view.gradient.squared_distance(pick)[:, 0]
        self._nearest = squared if self._nearest is None else torch.minimum(self._nearest, squared)

    def current(self) -> Tensor:
        return self._log_ratio(self.view.gradient.norms if self._nearest is None else self._nearest, self._mean_norm)

    def replay(self, earlier: Tensor) -> Tensor:
        nearest = _running_minimum_(self.view.gradient.squared_distance(earlier))
        first = self._log_ratio(self.view.gradient.norms, self._mean_norm)
        return torch.cat([first[:, None], self._log_ratio(nearest, self._mean_norm[:, None])], 1)

    @staticmethod
    def _log_ratio(squared: Tensor, mean: Tensor) -> Tensor:
        return (squared / mean + 1e-4).log().clamp(*LOG_LIMITS)


class BatchDistance(BatchFeature):
    """Hidden-feature distance to the picks; 0 before the first."""

    name = "batch_distance"
    words = GradientDistance.words

    def start(self) -> None:
        self._nearest: Tensor | None = None
        self._distance = torch.zeros_like(self.view.labelled)
        self._replayed: tuple[Tensor, Tensor] | None = None

    def add(self, pick: Tensor) -> None:
        squared = self.view.hidden.squared_distance(pick)[:, 0]
        self._nearest = squared if self._nearest is None else torch.minimum(self._nearest, squared)
        self._distance = self._nearest.sqrt()

    def current(self) -> Tensor:
        return self._distance

    def replay(self, earlier: Tensor) -> Tensor:
        if self._replayed is None or self._replayed[0] is not earlier:  # coreset_distance asks as well
            nearest = _running_minimum_(self.view.hidden.squared_distance(earlier)).sqrt_()
            first = torch.zeros_like(self.view.labelled)
            self._replayed = earlier, torch.cat([first[:, None], nearest], 1)
        return self._replayed[1]


class CoresetDistance(BatchFeature):
    """Hidden-feature distance to the nearest labelled or picked sample (this is CoreSet)."""

    name = "coreset_distance"
    words = FAR

    def start(self) -> None:
        self._batch = self.view.part(BatchDistance)
        self._nearest = self.view.labelled

    def add(self, pick: Tensor) -> None:
        self._nearest = torch.minimum(self.view.labelled, self._batch.current())

    def current(self) -> Tensor:
        return self._nearest

    def replay(self, earlier: Tensor) -> Tensor:
        labelled = self.view.labelled[:, None]
        return torch.cat([labelled, torch.minimum(labelled, self._batch.replay(earlier)[:, 1:])], 1)


class ClassShare(BatchFeature):
    """Share of the picks that are predicted to be of the same class."""

    name = "class_share"
    words = ("predicted class as of others in this batch", "predicted class is rare in this batch")
    groups = ("batch", "classes")

    def start(self) -> None:
        self._same = torch.zeros_like(self.view.labelled)
        self._picked = 0

    def add(self, pick: Tensor) -> None:
        predicted = self.view.predicted
        self._same = self._same + (predicted == predicted.gather(1, pick))
        self._picked += 1

    def current(self) -> Tensor:
        return self._same / max(self._picked, 1)

    def replay(self, earlier: Tensor) -> Tensor:
        predicted = self.view.predicted
        same = predicted[:, None] == predicted.gather(1, earlier)[..., None]
        counts = torch.arange(1, earlier.shape[1] + 1, device=earlier.device)[:, None]
        return torch.cat([torch.zeros_like(self.view.labelled)[:, None], same.float().cumsum(1) / counts], 1)


class CoverageGain(BatchFeature):
    """Log of what the candidate adds to the kernel coverage of the candidates (this is MaxHerding)."""

    name = "coverage_gain"
    words = ("stands for many other samples", "stands for few other samples")
    default = False

    def start(self) -> None:
        """Kernel between candidates and references, and how far the labelled samples cover the references."""
        valid, labelled = self.view.valid, self.view.labelled
        rows, slots = valid.shape
        count = min(REFERENCES, slots)
        at = torch.arange(count, device=valid.device) * slots // count  # spread out: slots follow the pool's order
        squared = self.view.hidden.squared_distance(at.expand(rows, -1))  # [B, R, K]
        counted = valid[:, at]
        pairs = counted[:, :, None] & valid[:, None]
        scale = (squared * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)
        width = (BANDWIDTH * scale).clamp_min(1e-12)[:, None]
        self._kernel = (-squared / width[:, None]).exp_()
        covered = (-labelled[:, at].square() / width).exp()
        self._covered = covered.masked_fill(~counted, 1.0)  # at empty slots nothing is gained
        self._first_gain = self.view.mean(self._gain(self._covered)).clamp_min(1e-20)

    def add(self, pick: Tensor) -> None:
        self._covered = torch.maximum(self._covered, self._kernel_at(pick)[:, 0])

    def current(self) -> Tensor:
        return self._log_gain(self._covered)

    def replay(self, earlier: Tensor) -> Tensor:
        covered = torch.cat([self._covered[:, None], self._kernel_at(earlier)], 1).cummax(1).values
        # One pick at a time: b x K x R numbers at once would be many.
        return torch.stack([self._log_gain(covered[:, j]) for j in range(covered.shape[1])], 1)

    def _kernel_at(self, picks: Tensor) -> Tensor:
        """Kernel between picks [B, b] and the references, [B, b, R]."""
        return torch.take_along_dim(self._kernel, picks[:, None], 2).mT

    def _gain(self, covered: Tensor) -> Tensor:
        """What each candidate adds to the coverage [B, R], [B, K]."""
        return (self._kernel - covered[:, :, None]).clamp_min_(0.0).sum(1)

    def _log_gain(self, covered: Tensor) -> Tensor:
        return (self._gain(covered) / self._first_gain + 1e-4).log().clamp(*LOG_LIMITS)


_OURS = (GradientDistance, BatchDistance, CoresetDistance, ClassShare, CoverageGain)
BATCH_FEATURES: Registry[type[BatchFeature]] = Registry(
    "batch feature",
    "subclass of policies.batch_features.BatchFeature",
    lambda found: isinstance(found, type) and issubclass(found, BatchFeature),
    {feature.name: feature for feature in _OURS},
)
DEFAULT_BATCH_FEATURES = tuple(feature.name for feature in BATCH_FEATURES.values() if feature.default)


class BatchAware:
    """Batch-aware features of B rows of K candidates.

    Args:
        observation: `envs.candidates.offer.Candidates.observation()`, batched.
        names: that BATCH_FEATURES can find, F of them; only these are computed.
    """

    def __init__(self, observation: dict[str, Tensor], names: Iterable[str] = BATCH_FEATURES):
        self._view = BatchView(observation)
        self._features = [self._view.part(BATCH_FEATURES.find(name)) for name in names]

    def current(self) -> Tensor:
        """Features for the next pick, [B, K, F]."""
        return torch.stack([feature.current() for feature in self._features], 2)

    def add(self, pick: Tensor) -> None:
        """Take note of one pick per row, [B]."""
        self._view.add(pick[:, None])

    def replay(self, picks: Tensor) -> Tensor:
        """The features in force at each of the picks [B, b], [B, b, K, F]; all picks at once."""
        earlier = picks[:, :-1]
        return torch.stack([feature.replay(earlier) for feature in self._features], 3)


def _running_minimum_(values: Tensor) -> Tensor:
    """Replace values [B, b, K] by the smallest so far along b; several times as fast as cummin, which keeps indices."""
    for j in range(1, values.shape[1]):
        torch.minimum(values[:, j], values[:, j - 1], out=values[:, j])
    return values
