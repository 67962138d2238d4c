"""Which samples are offered to a policy, and what it learns about each.

Static features are rank-normalised to [-1, 1] within the round, so that they mean the same on every data set and
do not depend on the number of modalities or classes. Features that change with every pick are the policy's to
recompute (`policies.batch_features`); for them each candidate carries a sketch of its gradient embedding and one of
its hidden features, whose inner products estimate those of the originals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from envs.candidates.published_score import Score, published_score
from envs.errors import ConfigError, nearest
from envs.fields import Finite, OneOf, Section
from envs.models.base import Outputs, rows_at
from envs.models.contribution import weights_among_present
from envs.models.evidence import difficulty, expected_probabilities, mean_entropy, vacuity
from envs.round import Round

GRADIENT_SKETCH = 64  # numbers that stand for a gradient embedding
HIDDEN_SKETCH = 32  # numbers that stand for the hidden features
NEIGHBOURS = 5  # labelled samples that speak for a candidate's surroundings
STATE_NAMES = (
    "progress",
    "validation_accuracy",
    "validation_nll",
    "validation_ece",
    "delta_min",
    "delta_mean",
    "delta_max",
    "mean_uncertainty",
    "mean_diversity",
    "loss_slope",
    "gradient_norm",
)


@dataclass(frozen=True)
class Candidates:
    """K offered samples in each of E episodes. Slots beyond the pool's end are invalid and hold zeros."""

    positions: Tensor  # int64 [E, K] pool positions
    valid: Tensor  # bool [E, K]
    features: Tensor  # [E, K, F] static features, rank-normalised
    gradient: Tensor  # [E, K, GRADIENT_SKETCH]
    hidden: Tensor  # [E, K, HIDDEN_SKETCH]
    labelled_distance: Tensor  # [E, K] to the nearest labelled sample, in hidden features
    predicted: Tensor  # int64 [E, K] predicted class
    state: Tensor  # [E, len(STATE_NAMES)]
    difficulty: Tensor  # [E, K] U, as it is
    modality_uncertainty: Tensor  # [E, M, K], as it is

    def observation(self) -> dict[str, Tensor]:
        """What a policy sees, in the precision that crosses to it (half, except for the state)."""
        return {
            "features": self.features.half(),
            "gradient": self.gradient.half(),
            "hidden": self.hidden.half(),
            "labelled_distance": self.labelled_distance.half(),
            "predicted": self.predicted.to(torch.int16),
            "valid": self.valid.to(torch.int8),
            "state": self.state.float(),
        }


@dataclass(frozen=True)
class CandidateConfig(Section, prefix="candidates."):
    """Which unlabelled samples a policy may choose from."""

    # random: the unlabelled pool up to a cap; score: the largest q (RL-MBA)
    rule: Annotated[str, OneOf(("random", "score"))] = "random"
    per_pick: Annotated[int, Ge(1)] = 40  # K = per_pick * batch_size
    score_beta: Annotated[float, Finite()] = 1.0  # weight of the diversity term in q
    amcb: bool = True  # the validation rows weigh the modalities; otherwise all count alike
    efda: bool = True  # uncertainty is the variance under the (fused) evidence; otherwise the entropy of its mean


class _View:
    """Candidate quantities, each computed once and only if a feature asks for it."""

    def __init__(self, round_: Round, positions: Tensor, outputs: Outputs, score: Score | None, efda: bool):
        self.round, self.positions, self.outputs, self.score, self.efda = round_, positions, outputs, score, efda

    @cached_property
    def probabilities(self) -> Tensor:  # [E, C, K]
        return self.outputs.probabilities

    @cached_property
    def top(self) -> tuple[Tensor, Tensor]:  # largest probability and its class, [E, K] each
        return self.probabilities.max(1)

    @cached_property
    def margin(self) -> Tensor:
        best, predicted = self.top
        second = self.probabilities.scatter(1, predicted[:, None], -1.0).amax(1)
        return second - best  # larger is less certain

    @cached_property
    def entropy(self) -> Tensor:
        return torch.special.entr(self.probabilities).sum(1)

    @cached_property
    def alpha(self) -> Tensor:  # EFDA's fused Dirichlet, [E, C, K]
        return self.round.fused(self.outputs)

    @cached_property
    def difficulty(self) -> Tensor:
        if self.efda:
            return difficulty(self.alpha)
        weights = self.round.weights_for(self.outputs)
        weights = weights[..., None] if weights.dim() == 2 else weights
        mixture = (weights[:, :, None] * expected_probabilities(self.outputs.evidence + 1.0)).sum(1)
        return torch.special.entr(mixture).sum(1)

    @cached_property
    def modality_uncertainty(self) -> Tensor:  # [E, M, K]
        return (difficulty if self.efda else mean_entropy)(self.outputs.evidence + 1.0)

    def over_modalities(self, kind: str) -> Tensor:
        u, present = self.modality_uncertainty, self.outputs.present
        if present is None:
            return {"mean": u.mean, "max": u.amax, "min": u.amin}[kind](1)
        if kind == "mean":
            return (u * present).sum(1) / present.sum(1)
        if kind == "max":
            return u.masked_fill(~present, -torch.inf).amax(1)
        return u.masked_fill(~present, torch.inf).amin(1)

    @cached_property
    def weighted_uncertainty(self) -> Tensor:
        weights = self.round.weights_for(self.outputs)
        weights = weights[..., None] if weights.dim() == 2 else weights
        return (weights * self.modality_uncertainty).sum(1)

    @cached_property
    def disagreement(self) -> Tensor:
        """Spread of the modalities' class probabilities: mean_m ||p_m||^2 - ||mean_m p_m||^2."""
        p = expected_probabilities(self.outputs.evidence + 1.0)  # [E, M, C, K]
        present = self.outputs.present
        if present is None:
            return p.square().sum(2).mean(1) - p.mean(1).square().sum(1)
        share = weights_among_present(p.new_ones(p.shape[:2]), present)  # [E, M, K]
        mean = (p * share[:, :, None]).sum(1)
        return (p.square().sum(2) * share).sum(1) - mean.square().sum(1)

    @cached_property
    def density(self) -> Tensor:
        return rows_at(self.round.density, self.positions)

    @cached_property
    def hidden_sketch(self) -> Tensor:  # [E, HIDDEN_SKETCH, K]
        return _hidden_sketch(self.outputs)

    @cached_property
    def labelled_outputs(self) -> Outputs:
        return self.round.outputs_at(self.round.labelled)

    @cached_property
    def relative_distance(self) -> Tensor:
        """Squared distance to each labelled sample less the candidate's squared norm, [E, n, K]."""
        labelled = _hidden_sketch(self.labelled_outputs)  # [E, HIDDEN_SKETCH, n]
        product = torch.bmm(labelled.mT, self.hidden_sketch)
        return labelled.square().sum(1)[:, :, None] - 2.0 * product

    @cached_property
    def labelled_distance(self) -> Tensor:
        return (self.hidden_sketch.square().sum(1) + self.relative_distance.amin(1)).clamp_min(0.0).sqrt()

    @cached_property
    def neighbours(self) -> Tensor:
        """The nearest labelled samples, int64 [E, NEIGHBOURS, K]."""
        count = min(NEIGHBOURS, self.relative_distance.shape[1])
        return self.relative_distance.topk(count, dim=1, largest=False).indices

    def at_neighbours(self, values: Tensor) -> Tensor:
        """Values [E, n] of the labelled samples at the neighbours, [E, NEIGHBOURS, K]."""
        return torch.take_along_dim(values[:, None].expand(-1, self.neighbours.shape[1], -1), self.neighbours, 2)

    @cached_property
    def neighbour_agreement(self) -> Tensor:
        """Share of the nearest labelled samples whose label is the predicted class."""
        return (self.at_neighbours(self.round.labels) == self.top[1][:, None]).float().mean(1)

    @cached_property
    def neighbour_loss(self) -> Tensor:
        """Mean loss of the nearest labelled samples: large where labels contradict each other."""
        p = torch.take_along_dim(self.labelled_outputs.probabilities, self.round.labels[:, None], 1)[:, 0]
        return self.at_neighbours(-p.clamp_min(1e-12).log()).mean(1)

    @cached_property
    def rarity(self) -> Tensor:
        """One minus the share of the labelled samples that have the predicted class."""
        labels, classes = self.round.labels, self.round.num_classes
        counts = torch.zeros(len(labels), classes, device=labels.device)
        counts.scatter_add_(1, labels, torch.ones_like(labels, dtype=counts.dtype))
        return 1.0 - torch.take_along_dim(counts, self.top[1], 1) / labels.shape[1]

    @cached_property
    def gradient_sketch(self) -> Tensor:  # [E, GRADIENT_SKETCH, K]
        error = self.probabilities.scatter_add(1, self.top[1][:, None], torch.full_like(self.top[0], -1.0)[:, None])
        z = self.outputs.embedding()
        signs_a, signs_z = _sign_projections(error.shape[1], z.shape[1], str(z.device))
        return torch.matmul(signs_a, error).mul_(torch.matmul(signs_z, z)).mul_(GRADIENT_SKETCH**-0.5)


FEATURES: dict[str, Callable[[_View], Tensor]] = {
    "margin": lambda v: v.margin,
    "entropy": lambda v: v.entropy,
    "difficulty": lambda v: v.difficulty,
    "vacuity": lambda v: vacuity(v.alpha),
    "mean_uncertainty": lambda v: v.over_modalities("mean"),
    "max_uncertainty": lambda v: v.over_modalities("max"),
    "min_uncertainty": lambda v: v.over_modalities("min"),
    "disagreement": lambda v: v.disagreement,
    "density": lambda v: v.density,
    "labelled_distance": lambda v: v.labelled_distance,
    "rarity": lambda v: v.rarity,
    "weighted_uncertainty": lambda v: v.weighted_uncertainty,
    "neighbour_agreement": lambda v: v.neighbour_agreement,
    "neighbour_loss": lambda v: v.neighbour_loss,
    "score": lambda v: v.score.at(v.positions)[0],
    "diversity": lambda v: v.score.at(v.positions)[1],
}
DEFAULT_FEATURES = tuple(
    name for name in FEATURES if name not in ("score", "diversity", "neighbour_agreement", "neighbour_loss")
)


def check_features(names: tuple[str, ...]) -> None:
    """Raise ConfigError at the first name that is not a candidate feature."""
    for name in names:
        if name not in FEATURES:
            raise ConfigError(
                f"Unknown candidate feature {name!r}.{nearest(name, FEATURES)} Features: {', '.join(FEATURES)}."
            )


def offer(
    round_: Round, batch_size: int, config: CandidateConfig, features: tuple[str, ...] = DEFAULT_FEATURES
) -> Candidates:
    """Choose the candidates of a round and describe them.

    The cap is drawn by start seed and round, so copies of a start are offered the same samples as far as they are
    all still unlabelled.

    Args:
        batch_size: b of the episode; K = config.per_pick * b.
        features: names from FEATURES.
    """
    cap = config.per_pick * batch_size
    pool = round_.available.shape[1]
    count = min(cap, int(round_.available[0].sum()))
    needs_score = config.rule == "score" or not {"score", "diversity"}.isdisjoint(features)
    if not config.amcb:
        round_ = round_.with_equal_weights()
    score = published_score(round_, batch_size, config.score_beta, config.efda) if needs_score else None
    keys = score.q if config.rule == "score" else round_.uniforms("candidates", pool)
    positions = keys.masked_fill(~round_.available, -torch.inf).topk(count, dim=1).indices
    if config.rule == "random":
        positions = positions.sort(1).values
    view = _View(round_, positions, round_.outputs_at(positions), score, config.efda)
    columns = [FEATURES[name](view) for name in features]
    values = rank_normalise(torch.stack(columns, 1)) if columns else positions.new_zeros(len(positions), 0, count)
    return Candidates(
        positions=_pad(positions, cap),
        valid=_pad(torch.ones_like(positions, dtype=torch.bool), cap),
        features=_pad(values, cap).mT,
        gradient=_pad(view.gradient_sketch, cap).mT,
        hidden=_pad(view.hidden_sketch, cap).mT,
        labelled_distance=_pad(view.labelled_distance, cap),
        predicted=_pad(view.top[1], cap),
        state=_state(round_, view),
        difficulty=_pad(view.difficulty, cap),
        modality_uncertainty=_pad(view.modality_uncertainty, cap),
    )


def rank_normalise(values: Tensor) -> Tensor:
    """Ranks along the last axis, mapped to [-1, 1]; ties share their mean rank, a constant becomes 0."""
    count = values.shape[-1]
    ordered, order = values.sort(-1)
    rank = torch.arange(count, device=values.device, dtype=values.dtype).expand_as(values).contiguous()
    begins = ordered[..., 1:] != ordered[..., :-1]
    tied = (~begins).any(-1)  # few features have ties
    if bool(tied.any()):
        rank[tied] = _mean_rank_of_runs(begins[tied]).to(rank.dtype)
    rank.sub_((count - 1) / 2).mul_(2.0 / max(count - 1, 1))
    return torch.empty_like(values).scatter_(-1, order, rank)


def _mean_rank_of_runs(begins: Tensor) -> Tensor:
    """Mean position of the run that each position lies in, [n, K]; `begins` [n, K - 1]: a run begins behind it."""
    run = torch.nn.functional.pad(begins.long().cumsum(-1), (1, 0))  # [n, K] number of the run
    index = torch.arange(run.shape[-1], device=run.device, dtype=torch.float32).expand(run.shape)
    size = torch.zeros(run.shape, device=run.device).scatter_add_(-1, run, torch.ones_like(index))
    total = torch.zeros(run.shape, device=run.device).scatter_add_(-1, run, index)
    return (total / size.clamp_min(1.0)).gather(-1, run)


def _state(round_: Round, view: _View) -> Tensor:
    v = round_.validation
    diversity = view.labelled_distance if view.score is None else view.score.at(view.positions)[1]
    columns = [
        torch.full_like(v.accuracy, round_.progress),
        v.accuracy,
        v.nll,
        v.ece,
        v.delta.amin(1),
        v.delta.mean(1),
        v.delta.amax(1),
        view.difficulty.mean(1),
        diversity.mean(1),
        round_.model.loss_slope,
        round_.model.gradient_norm,
    ]
    return torch.stack(columns, 1)


def _pad(values: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, size - values.shape[-1]))


def _hidden_sketch(outputs: Outputs) -> Tensor:
    """Random projection of the concatenated, per-modality L2-normalised hidden features, [E, 32, R]."""
    hidden = outputs.hidden  # the last unit is constant
    norms = (hidden.square().sum(2, keepdim=True) - hidden[:, :, -1:].square()).clamp_min(1e-12)
    normalised = (hidden * norms.rsqrt()).flatten(1, 2)
    return torch.matmul(_gaussian_projection(hidden.shape[1], hidden.shape[2], str(hidden.device)), normalised)


@lru_cache(maxsize=16)
def _gaussian_projection(modalities: int, hidden: int, device: str) -> Tensor:
    rng = np.random.default_rng([modalities, hidden, 1])
    matrix = rng.standard_normal((HIDDEN_SKETCH, modalities, hidden)) / np.sqrt(HIDDEN_SKETCH)
    matrix[:, :, -1] = 0.0  # the constant unit holds no information
    return torch.from_numpy(matrix.reshape(HIDDEN_SKETCH, -1).astype(np.float32)).to(device)


@lru_cache(maxsize=16)
def _sign_projections(classes: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng([classes, width, 2])
    signs = [rng.choice(np.float32([-1, 1]), (GRADIENT_SKETCH, n)) for n in (classes, width)]
    return torch.from_numpy(signs[0]).to(device), torch.from_numpy(signs[1]).to(device)
