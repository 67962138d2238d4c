"""What a feature that changes with the picks is, and what such features share about the candidates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor

from envs.candidates import ON_DEMAND


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
    def fisher(self) -> Tensor:  # whitened Fisher embedding, [B, K, D]
        return self.observation["fisher"].float()

    @cached_property
    def input(self) -> Points:
        return Points(self.observation["input"].float())

    @cached_property
    def input_distance(self) -> Tensor:  # to the nearest labelled sample, [B, K]
        return self.observation["input_distance"].float()

    @cached_property
    def uncertainty(self) -> Tensor:  # in [0, 1], [B, K]
        return self.observation["uncertainty"].float()

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

    def narrow(self, index: Tensor) -> None:
        """Keep the candidates at index [B, k] only, before the first pick."""
        computed = [name for name, value in vars(type(self)).items() if isinstance(value, cached_property)]
        for name in computed:
            self.__dict__.pop(name, None)  # it was computed of all candidates
        self.observation = {
            name: values if name == "state" else _rows(values, index) for name, values in self.observation.items()
        }
        for part in self._parts.values():
            part.narrow(index)

    def add(self, pick: Tensor) -> None:
        """Tell every feature of one pick per row, [B, 1]; what others build on comes before them."""
        for part in self._parts.values():
            part.add(pick)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """values [B, K, ...] at index [B, k]."""
    if values.dim() == 2:
        return values.gather(1, index)
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


class Points:
    """Points [B, K, D] and their distances to some of themselves."""

    def __init__(self, at: Tensor):
        self._at = at
        self.norms = at.square().sum(2)  # squared, [B, K]

    def squared_distance(self, index: Tensor) -> Tensor:
        """Squared distance of every point to the points at index [B, b], [B, b, K]."""
        chosen = torch.take_along_dim(self._at, index[..., None], 1)
        product = torch.bmm(chosen, self._at.mT)  # and in place from here on: fresh memory costs more than arithmetic
        return product.mul_(-2.0).add_(self.norms.gather(1, index)[..., None]).add_(self.norms[:, None]).clamp_min_(0.0)


class BatchFeature(ABC):
    """One feature of candidates that depends on the picks, followed over a round.

    Args:
        view: the candidates.
    """

    name: ClassVar[str]
    words: ClassVar[tuple[str, str]]  # what people read where it is high, and where it is low
    groups: ClassVar[tuple[str, ...]] = ("batch",)  # what it tells about; benchmarks/variants.py trains without a group
    default: ClassVar[bool] = True  # whether policies look at it unless told otherwise
    reads: ClassVar[tuple[str, ...]] = ON_DEMAND  # of these entries of an observation, those that it looks at

    def __init__(self, view: BatchView):
        self.view = view
        self.start()

    @abstractmethod
    def start(self) -> None:
        """Prepare for the first pick."""

    def narrow(self, index: Tensor) -> None:
        """Keep the candidates at index [B, k] only, as the view does already; nothing was added yet.

        As it stands a new start among them; a feature that compares with all candidates has to keep what it compares
        with.
        """
        self.start()

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
