"""What can be said about the candidates of a round; features, sketches and state are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from envs.candidates.published_score import Score
from envs.models.base import Outputs, rows_at
from envs.models.contribution import weights_among_present
from envs.models.evidence import difficulty, expected_probabilities, mean_entropy
from envs.round import Round

GRADIENT_SKETCH = 64  # numbers that stand for a gradient embedding
HIDDEN_SKETCH = 32  # numbers that stand for the hidden features
FISHER_SKETCH = 64  # directions in which Fisher information is followed
INPUT_SKETCH = 64  # directions in which input features are followed
_RANK = 1e-12  # squared singular values below this share of the largest count as none
NEIGHBOURS = 5  # labelled samples that speak for a candidate's surroundings


@dataclass(frozen=True, eq=False)
class View:
    """K candidates in each of E episodes, and what can be said about them, computed once and only if a feature asks.

    Quantities are [E, K] unless they say otherwise.
    """

    round: Round
    batch_size: int  # b
    positions: Tensor  # int64 [E, K] pool positions
    score: Score | None  # None: no feature in use needs it
    efda: bool  # uncertainty is the variance under the (fused) evidence; otherwise the entropy of its mean

    @cached_property
    def outputs(self) -> Outputs:
        return self.round.outputs_at(self.positions)

    @cached_property
    def scored(self) -> tuple[Tensor, Tensor]:
        """The published score q and its diversity term."""
        if self.score is None:
            raise RuntimeError("a feature reads the published score, but its record lacks needs_score=True")
        return self.score.at(self.positions)

    @cached_property
    def probabilities(self) -> Tensor:  # [E, C, K]
        return self.outputs.probabilities

    @cached_property
    def top(self) -> tuple[Tensor, Tensor]:  # largest probability and its class
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
        if kind == "mean":
            return u.mean(1) if present is None else (u * present).sum(1) / present.sum(1)
        if kind == "max":
            return (u if present is None else u.masked_fill(~present, -torch.inf)).amax(1)
        return (u if present is None else u.masked_fill(~present, torch.inf)).amin(1)

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

    @property
    def diversity(self) -> Tensor:
        """The published score's diversity term where it is at hand, else the distance to the labelled samples."""
        return self.labelled_distance if self.score is None else self.scored[1]

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
    def fisher(self) -> Tensor:
        """BAIT's Fisher embeddings v as the n labelled samples leave them to be learned, [E, FISHER_SKETCH, K].

        With M = I + sum over the labelled rows of v v^T / (n + b) = L L^T a candidate is sqrt(b / (n + b)) L^-1 v, in
        the directions in which the candidates hold most of it; all of it where v has no more entries than that.
        """
        labelled, v = self.labelled_outputs.fisher_embedding(), self.outputs.fisher_embedding()
        total = labelled.shape[2] + self.batch_size
        identity = torch.eye(v.shape[1], device=v.device)
        root = torch.linalg.cholesky(identity + labelled @ labelled.mT / total)
        whitened = torch.linalg.solve_triangular(root, v * (self.batch_size / total) ** 0.5, upper=False)
        return _in_leading_directions(whitened, FISHER_SKETCH)

    @cached_property
    def _unit_inputs(self) -> Tensor:
        """Input features of the pool, all modalities side by side and together of length 1, [S, D, P]."""
        return torch.nn.functional.normalize(self.round.model.inputs(), dim=1)

    @cached_property
    def inputs(self) -> Tensor:
        """The candidates' in the directions in which the pool's hold most, [E, INPUT_SKETCH, K].

        Distances between them hardly change.
        """
        return rows_at(_in_leading_directions(self._unit_inputs, INPUT_SKETCH), self.positions)

    @cached_property
    def input_distance(self) -> Tensor:
        """To the nearest labelled sample, in input features of length 1."""
        x, labelled = (rows_at(self._unit_inputs, at) for at in (self.positions, self.round.labelled))
        nearest = (labelled.square().sum(1)[:, :, None] - 2.0 * torch.bmm(labelled.mT, x)).amin(1)
        return (x.square().sum(1) + nearest).clamp_min(0.0).sqrt()

    @cached_property
    def gradient_sketch(self) -> Tensor:  # [E, GRADIENT_SKETCH, K]
        error = self.probabilities.scatter_add(1, self.top[1][:, None], torch.full_like(self.top[0], -1.0)[:, None])
        z = self.outputs.embedding()
        signs_a, signs_z = _sign_projections(error.shape[1], z.shape[1], str(z.device))
        return torch.matmul(signs_a, error).mul_(torch.matmul(signs_z, z)).mul_(GRADIENT_SKETCH**-0.5)


def _hidden_sketch(outputs: Outputs) -> Tensor:
    """Random projection of the concatenated, per-modality L2-normalised hidden features, [E, 32, R]."""
    hidden = outputs.hidden  # the last unit is constant
    norms = (hidden.square().sum(2, keepdim=True) - hidden[:, :, -1:].square()).clamp_min(1e-12)
    normalised = (hidden * norms.rsqrt()).flatten(1, 2)
    return torch.matmul(_gaussian_projection(hidden.shape[1], hidden.shape[2], str(hidden.device)), normalised)


def _in_leading_directions(points: Tensor, count: int) -> Tensor:
    """Points [E, D, K] in coordinates along their `count` leading directions, zeros where D is less, [E, count, K]."""
    if points.shape[1] > count:
        return _leading_directions(points @ points.mT, count).mT @ points
    return torch.nn.functional.pad(points, (0, 0, 0, count - points.shape[1]))


def _leading_directions(gram: Tensor, count: int) -> Tensor:
    """A basis of about the span of the `count` leading eigenvectors of [E, D, D], [E, D, count].

    The range of the matrix by random vectors (Halko et al. 2011, arXiv 0909.4061), orthonormal where it is of full
    rank; what is missing from the rank is 0. By Cholesky's factor in double precision: a tenth of the time that QR
    takes on a processor, and eigenvalues LAPACK does not always find for a model that is sure of everything.
    """
    scale = gram.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-30)[:, None, None]
    begin = _gaussian_matrix(gram.shape[1], count, str(gram.device)).expand(len(gram), -1, -1)
    spanned = (gram / scale @ begin).double()
    products = spanned.mT @ spanned
    products.diagonal(dim1=1, dim2=2).add_(_RANK + _RANK * products.diagonal(dim1=1, dim2=2).amax(1, keepdim=True))
    return torch.linalg.solve_triangular(torch.linalg.cholesky(products), spanned.mT, upper=False).mT.float()


@lru_cache(maxsize=16)
def _gaussian_matrix(rows: int, columns: int, device: str) -> Tensor:
    values = np.random.default_rng([rows, columns, 3]).standard_normal((rows, columns))
    return torch.from_numpy(values.astype(np.float32)).to(device)


@lru_cache(maxsize=16)
def _gaussian_projection(modalities: int, hidden: int, device: str) -> Tensor:
    rng = np.random.default_rng([modalities, hidden, 1])
    matrix = rng.standard_normal((HIDDEN_SKETCH, modalities, hidden)) / np.sqrt(HIDDEN_SKETCH)
    matrix[:, :, -1] = 0.0  # the constant unit holds no information
    return torch.from_numpy(matrix.reshape(HIDDEN_SKETCH, -1).astype(np.float32)).to(device)


@lru_cache(maxsize=16)
def _sign_projections(classes: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng([classes, width, 2])
    signs = [rng.choice(np.array([-1, 1], np.float32), (GRADIENT_SKETCH, n)) for n in (classes, width)]
    return torch.from_numpy(signs[0]).to(device), torch.from_numpy(signs[1]).to(device)
