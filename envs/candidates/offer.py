"""Which samples are offered to a policy, with all that it learns about them (`envs.candidates.features`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from envs.candidates.features import DEFAULT_FEATURES, FEATURES, STATE, Feature
from envs.candidates.observation import OBSERVATION
from envs.candidates.published_score import published_score
from envs.candidates.scales import log_ratio, rank_normalise
from envs.candidates.view import View
from envs.fields import Finite, OneOf, Section
from envs.round import Round


@dataclass(frozen=True)
class Candidates:
    """K offered samples in each of E episodes. Slots beyond the pool's end are invalid and hold zeros."""

    _view: ClassVar[View]  # of each instance; no field, for it is no tensor
    positions: Tensor  # int64 [E, K] pool positions
    valid: Tensor  # bool [E, K]
    features: Tensor  # [E, K, F] static features, as ranks or logarithms of ratios
    gradient: Tensor  # [E, K, GRADIENT_SKETCH]
    hidden: Tensor  # [E, K, HIDDEN_SKETCH]
    labelled_distance: Tensor  # [E, K] to the nearest labelled sample, in hidden features
    predicted: Tensor  # int64 [E, K] predicted class
    state: Tensor  # [E, len(STATE)]
    difficulty: Tensor  # [E, K] U, as it is
    modality_uncertainty: Tensor  # [E, M, K], as it is
    view: InitVar[View]  # what is computed on demand is made of it

    def __post_init__(self, view: View) -> None:
        object.__setattr__(self, "_view", view)  # the dataclass is frozen

    def _described(self, values: Tensor) -> Tensor:
        return _pad(values, self.valid.shape[1])

    @cached_property
    def fisher(self) -> Tensor:  # [E, K, FISHER_SKETCH]
        return self._described(self._view.fisher).mT

    @cached_property
    def input(self) -> Tensor:  # [E, K, INPUT_SKETCH]
        return self._described(self._view.inputs).mT

    @cached_property
    def input_distance(self) -> Tensor:  # [E, K] to the nearest labelled sample, in input features
        return self._described(self._view.input_distance)

    @cached_property
    def uncertainty(self) -> Tensor:  # [E, K] in [0, 1]
        return self._described((1.0 + self._view.margin).clamp(0.0, 1.0))

    def observation(self, half: bool = True, entries: Iterable[str] = OBSERVATION) -> dict[str, Tensor]:
        """What a policy sees: our own in half precision; others the same numbers in types that any library takes.

        Args:
            entries: those that it reads; only these are computed.
        """
        return {name: OBSERVATION[name].of(getattr(self, name), half) for name in entries}


@dataclass(frozen=True)
class CandidateConfig(Section, prefix="candidates."):
    """Which unlabelled samples a policy may choose from."""

    # random: the unlabelled pool up to a cap; score: the largest q (RL-MBA)
    rule: Annotated[str, OneOf(("random", "score"))] = "random"
    per_pick: Annotated[int, Ge(1)] = 40  # K = per_pick * batch_size
    score_beta: Annotated[float, Finite()] = 1.0  # weight of the diversity term in q
    amcb: bool = True  # the validation rows weigh the modalities; otherwise all count alike
    efda: bool = True  # uncertainty is the variance under the (fused) evidence; otherwise the entropy of its mean


def offer(
    round_: Round, batch_size: int, config: CandidateConfig, features: tuple[str, ...] = DEFAULT_FEATURES
) -> Candidates:
    """Choose the candidates of a round and describe them.

    The cap is drawn by start seed and round, so copies of a start are offered the same samples as far as they are
    all still unlabelled.

    Args:
        batch_size: b of the episode; K = config.per_pick * b.
        features: names that FEATURES can find.
    """
    cap = config.per_pick * batch_size
    pool = round_.available.shape[1]
    count = min(cap, int(round_.available[0].sum()))
    described = [FEATURES.find(name) for name in features]
    needs_score = config.rule == "score" or any(feature.needs_score for feature in described)
    if not config.amcb:
        round_ = round_.with_equal_weights()
    score = published_score(round_, batch_size, config.score_beta, config.efda) if needs_score else None
    keys = round_.uniforms("candidates", pool) if score is None or config.rule == "random" else score.q
    positions = keys.masked_fill(~round_.available, -torch.inf).topk(count, dim=1).indices
    if config.rule == "random":
        positions = positions.sort(1).values
    view = View(round_, batch_size, positions, score, config.efda)
    return Candidates(
        positions=_pad(positions, cap),
        valid=_pad(torch.ones_like(positions, dtype=torch.bool), cap),
        features=_pad(_scaled(described, view), cap).mT,
        gradient=_pad(view.gradient_sketch, cap).mT,
        hidden=_pad(view.hidden_sketch, cap).mT,
        labelled_distance=_pad(view.labelled_distance, cap),
        predicted=_pad(view.top[1], cap),
        state=torch.stack([entry.value(view) for entry in STATE.values()], 1),
        difficulty=_pad(view.difficulty, cap),
        modality_uncertainty=_pad(view.modality_uncertainty, cap),
        view=view,
    )


def _scaled(features: Sequence[Feature], view: View) -> Tensor:
    """Each feature on its scale, [E, F, K]; ranks are taken of all at once."""
    if not features:
        return view.top[0].new_zeros(len(view.positions), 0, view.positions.shape[1])
    values = torch.stack([feature.value(view) for feature in features], 1)
    ranked = [i for i, f in enumerate(features) if f.ranked]
    if len(ranked) == len(features):
        return rank_normalise(values)
    sizes = log_ratio(values, values.mean(2, keepdim=True))
    if ranked:
        sizes[:, ranked] = rank_normalise(values[:, ranked])
    return sizes


def _pad(values: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, size - values.shape[-1]))
