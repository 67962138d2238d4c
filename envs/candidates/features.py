"""What a policy learns about each candidate, and about the round as a whole.

A feature is one record in FEATURES, an entry of the state one in STATE: name, value, and words for people. Features
are rank-normalised to [-1, 1] within the round, so that they mean the same on every data set and do not depend on the
number of modalities or classes; where it is the size that tells, they are logarithms of the ratio to the round's mean.
Features that change with every pick are the policy's to recompute (`policies.batch_features`); for them each candidate
carries a sketch of its gradient embedding and one of its hidden features, whose inner products estimate those of the
originals, and its Fisher information.

To add a feature of your own, see `examples/feature.py`: where a configuration names features, `module:name` stands for
a `Feature` of yours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from envs.candidates.view import View
from envs.models.evidence import vacuity
from envs.registry import Registry


@dataclass(frozen=True)
class Feature:
    """One static feature of candidates."""

    name: str
    value: Callable[[View], Tensor]  # [E, K], before ranks are taken of it; at least 0 where they are not
    words: tuple[str, str]  # what people read where it is high, and where it is low; features that share them are one
    groups: tuple[str, ...] = ()  # what it tells about; benchmarks/variants.py trains without a group
    default: bool = False  # whether policies look at it unless told otherwise; read once, when this module loads
    ranked: bool = True  # by ranks; otherwise by the logarithm of the ratio to the round's mean
    needs_score: bool = False  # reads `View.scored`, which takes a clustering of the pool


@dataclass(frozen=True)
class StateEntry:
    """One number about the round as a whole."""

    name: str
    value: Callable[[View], Tensor]  # [E]
    words: str  # what it is, for people


# Words that several features share.
UNSURE = ("the model is less sure of its class than of others'", "the model is surer of its class than of others'")
FAR = ("far from everything labelled", "close to labelled samples")

_OURS: dict[str, Feature] = {
    feature.name: feature
    for feature in (
        Feature("margin", lambda v: v.margin, UNSURE, ("uncertainty",), default=True),
        Feature("entropy", lambda v: v.entropy, UNSURE, ("uncertainty",), default=True),
        Feature("difficulty", lambda v: v.difficulty, UNSURE, ("uncertainty",), default=True),
        Feature(
            "vacuity",
            lambda v: vacuity(v.alpha),
            ("the model has seen little like it", "the model has seen much like it"),
            ("uncertainty",),
            default=True,
        ),
        Feature(
            "mean_uncertainty",
            lambda v: v.over_modalities("mean"),
            UNSURE,
            ("uncertainty", "modalities"),
            default=True,
        ),
        Feature(
            "max_uncertainty",
            lambda v: v.over_modalities("max"),
            UNSURE,
            ("uncertainty", "modalities"),
            default=True,
        ),
        Feature(
            "min_uncertainty",
            lambda v: v.over_modalities("min"),
            UNSURE,
            ("uncertainty", "modalities"),
            default=True,
        ),
        Feature(
            "disagreement",
            lambda v: v.disagreement,
            ("modalities disagree", "modalities agree"),
            ("modalities",),
            default=True,
        ),
        Feature(
            "density",
            lambda v: v.density,
            ("many samples are like it", "few samples are like it"),
            ("density",),
            default=True,
        ),
        Feature("labelled_distance", lambda v: v.labelled_distance, FAR, ("labelled_distance",), default=True),
        Feature(
            "rarity",
            lambda v: v.rarity,
            ("its predicted class has few labels", "its predicted class has many labels"),
            ("classes",),
            default=True,
        ),
        Feature(
            "weighted_uncertainty",
            lambda v: v.weighted_uncertainty,
            UNSURE,
            ("uncertainty", "modalities"),
            default=True,
        ),
        Feature(
            "log_uncertainty",
            lambda v: 1.0 + v.margin,
            UNSURE,
            ("uncertainty",),
            ranked=False,
        ),
        Feature(
            "neighbour_agreement",
            lambda v: v.neighbour_agreement,
            ("labelled neighbours share its predicted class", "labelled neighbours contradict its predicted class"),
            ("neighbours",),
        ),
        Feature(
            "neighbour_loss",
            lambda v: v.neighbour_loss,
            ("labels around it contradict each other", "labels around it are consistent"),
            ("neighbours",),
        ),
        Feature("score", lambda v: v.scored[0], UNSURE, ("score",), needs_score=True),
        Feature("diversity", lambda v: v.scored[1], FAR, ("score",), needs_score=True),
    )
}
FEATURES = Registry("candidate feature", "envs.candidates.Feature", lambda found: isinstance(found, Feature), _OURS)
DEFAULT_FEATURES = tuple(feature.name for feature in FEATURES.values() if feature.default)

STATE: dict[str, StateEntry] = {
    entry.name: entry
    for entry in (
        StateEntry(
            "progress",
            lambda v: torch.full_like(v.round.validation.accuracy, v.round.progress),
            "how far the episode is, from 0 at its first round to 1 at its last",
        ),
        StateEntry("validation_accuracy", lambda v: v.round.validation.accuracy, "accuracy on the validation rows"),
        StateEntry("validation_nll", lambda v: v.round.validation.nll, "log loss on the validation rows"),
        StateEntry("validation_ece", lambda v: v.round.validation.ece, "calibration error on the validation rows"),
        StateEntry(
            "delta_min",
            lambda v: v.round.validation.delta.amin(1),
            "accuracy of the weakest modality alone less that of all together",
        ),
        StateEntry(
            "delta_mean",
            lambda v: v.round.validation.delta.mean(1),
            "mean accuracy of the modalities alone less that of all together",
        ),
        StateEntry(
            "delta_max",
            lambda v: v.round.validation.delta.amax(1),
            "accuracy of the strongest modality alone less that of all together",
        ),
        StateEntry("mean_uncertainty", lambda v: v.difficulty.mean(1), "mean difficulty U of the candidates"),
        StateEntry(
            "mean_diversity",
            lambda v: v.diversity.mean(1),
            "mean distance of the candidates to the labelled samples, or to the centroids of the published score",
        ),
        StateEntry("loss_slope", lambda v: v.round.model.loss_slope, "change of the training loss per step"),
        StateEntry("gradient_norm", lambda v: v.round.model.gradient_norm, "norm of the last training gradient"),
    )
}


def check_features(names: tuple[str, ...]) -> None:
    """Raise ConfigError at the first name that is not a candidate feature."""
    for name in names:
        FEATURES.find(name)
