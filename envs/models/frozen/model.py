"""The task model: E evidential multimodal classifiers, trained from scratch as one batched computation.

Each modality m has an encoder z_m = relu(W_m x_m) and an evidential head alpha_m = 1 + softplus(A_m z_m); the
multimodal head is a softmax over B z, z the concatenation of the z_m. Losses: the type II maximum likelihood
of the Dirichlet for the modality heads (Sensoy et al. 2018, eq. 3), cross-entropy for the multimodal head.

Rows lie on the last axis: the element-wise work then runs over contiguous rows whatever the number of classes.
A constant input and a constant hidden unit carry the biases, so a training step is eight batched matrix
products with the gradient written out (autograd's bookkeeping would cost as much again at this size).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor
from torch.optim.adamw import adamw

from envs.fields import Section

# Episodes trained together on a processor: a block's buffers should stay in its cache.
CPU_BLOCK = 16


@dataclass(frozen=True)
class TaskModelConfig(Section, prefix="model."):
    """How the task model is trained in each round."""

    hidden: Annotated[int, Ge(2)] = 24  # units of each modality's encoder, a constant one among them
    steps: Annotated[int, Ge(1)] = 40  # AdamW steps per round, from scratch
    learning_rate: Annotated[float, Gt(0)] = 0.02
    weight_decay: Annotated[float, Ge(0)] = 0.01
    projection_dim: Annotated[int, Ge(1)] = 32  # principal components kept per modality
    minibatch: Annotated[int, Ge(1)] = 512  # labelled rows per step once there are more than this


@dataclass(frozen=True)
class Outputs:
    """What E task models say about R rows. Where a modality is absent its entries are zero."""

    hidden: Tensor  # [E, M, H, R] encoder outputs
    evidence: Tensor  # [E, M, C, R] alpha_m - 1
    logits: Tensor  # [E, C, R] of the multimodal head
    present: Tensor | None  # bool [E, M, R]; None: every row has every modality

    @property
    def probabilities(self) -> Tensor:
        """Multimodal softmax, [E, C, R]."""
        return torch.softmax(self.logits, dim=1)

    def embedding(self) -> Tensor:
        """Input of the multimodal head's last layer, [E, M H, R]."""
        return self.hidden.flatten(1, 2)


@dataclass(frozen=True)
class Parameters:
    """Parameters of E models."""

    encoder: Tensor  # [E, M, H, D + 1]; the last unit is the constant one
    modality_head: Tensor  # [E, M, C, H]
    multimodal_head: Tensor  # [E, C, M H]

    def map(self, function) -> Parameters:
        return Parameters(*(function(getattr(self, f.name)) for f in fields(self)))


def initial_parameters(seeds: list[int], modalities: int, dim: int, classes: int, hidden: int) -> Parameters:
    """He-initialised parameters, drawn per seed so that an episode's do not depend on its neighbours."""
    encoder, modality, multimodal = [], [], []
    for seed in seeds:
        rng = np.random.default_rng(np.random.SeedSequence([seed, 0x7A5C]))
        w = np.zeros((modalities, hidden, dim + 1), np.float32)
        w[:, :-1, :-1] = rng.standard_normal((modalities, hidden - 1, dim)) * np.sqrt(2.0 / dim)
        w[:, -1, -1] = 1.0
        encoder.append(w)
        scale = np.sqrt(1.0 / hidden)
        modality.append(rng.standard_normal((modalities, classes, hidden), dtype=np.float32) * scale)
        multimodal.append(
            rng.standard_normal((classes, modalities * hidden), dtype=np.float32) * scale / np.sqrt(modalities)
        )
    stack = [np.stack(p).astype(np.float32) for p in (encoder, modality, multimodal)]
    return Parameters(*(torch.from_numpy(p) for p in stack))


@dataclass(frozen=True)
class TaskModel:
    """E trained classifiers, and how their training went."""

    parameters: Parameters
    loss_slope: Tensor  # [E] change of the training loss per step
    gradient_norm: Tensor  # [E] at the last step

    def encode(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Encoder outputs [E, M, H, R] for the same rows as `predict`."""
        episodes = self.parameters.encoder.shape[0]
        hidden = torch.matmul(self.parameters.encoder, per_episode(x, episodes)).relu_()
        return hidden if present is None else hidden * per_episode(present, episodes)[:, :, None]

    def predict(self, x: Tensor, present: Tensor | None = None) -> Outputs:
        """Outputs for rows x [E or S, M, D + 1, R]; S starts are each shared by E / S copies."""
        p = self.parameters
        present = per_episode(present, p.encoder.shape[0])
        hidden = self.encode(x, present)
        evidence, _ = softplus_and_slope(torch.matmul(p.modality_head, hidden))
        if present is not None:
            evidence = evidence * present[:, :, None]
        logits = torch.bmm(p.multimodal_head, hidden.flatten(1, 2))
        return Outputs(hidden, evidence, logits, present)


def softplus_and_slope(x: Tensor, out: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """softplus(x) and its derivative sigmoid(x), by way of softplus(x) = -log sigmoid(-x).

    In single precision softplus stops growing at 85. `out` holds both results; a loop should give it: fresh memory for
    every call costs as much as the arithmetic.
    """
    value, slope = out or (torch.empty_like(x), torch.empty_like(x))
    complement = torch.neg(x, out=slope).sigmoid_().clamp_min_(1e-37)
    torch.log(complement, out=value).neg_()
    return value, complement.neg_().add_(1.0)


def per_episode(x: Tensor | None, episodes: int) -> Tensor | None:
    """Repeat [S, ...] to [E, ...]: the copies of a start follow one another."""
    if x is None or x.shape[0] == episodes:
        return x
    return x.repeat_interleave(episodes // x.shape[0], 0)


def rows_at(x: Tensor, positions: Tensor) -> Tensor:
    """x [S, ..., P] at positions [E, K], [E, ..., K]; the copies of a start read it in place."""
    starts, copies = x.shape[0], len(positions) // x.shape[0]
    shape = (starts, copies, *x.shape[1:-1], positions.shape[1])
    index = positions.view(starts, copies, *[1] * (x.dim() - 2), -1).expand(shape)
    # gather, not take_along_dim: that one writes the expanded index out, which takes four times as long.
    return x[:, None].expand(starts, copies, *x.shape[1:]).gather(-1, index).flatten(0, 1)


def fit(
    initial: Parameters,
    x: Tensor,
    labels: Tensor,
    config: TaskModelConfig,
    present: Tensor | None = None,
    seeds: list[int] | None = None,
    heads: str = "evidential",
    dropout: float = 0.0,
) -> TaskModel:
    """Train E models from `initial` (left untouched) on their labelled rows.

    Args:
        x: labelled rows [E, M, D + 1, n], the last feature 1.
        labels: [E, n] int64.
        present: bool [E, M, n], or None where nothing is missing.
        seeds: one per episode, for minibatches and dropout; needed when n > config.minibatch or dropout > 0.
        heads: loss of the modality heads, "evidential" or "cross_entropy" (a softmax over their logits).
        dropout: probability with which a step drops each encoder output; the others are scaled up.
    """
    episodes = x.shape[0]
    block = CPU_BLOCK if x.device.type == "cpu" else episodes
    parts = []
    for low in range(0, episodes, block):
        at = slice(low, low + block)
        parts.append(
            _fit_block(
                initial.map(lambda p, at=at: p[at]),
                x[at],
                labels[at],
                config,
                None if present is None else present[at],
                None if seeds is None else seeds[at],
                heads,
                dropout,
            )
        )
    if len(parts) == 1:
        return parts[0]
    names = [f.name for f in fields(Parameters)]
    return TaskModel(
        Parameters(*(torch.cat([getattr(p.parameters, name) for p in parts]) for name in names)),
        torch.cat([p.loss_slope for p in parts]),
        torch.cat([p.gradient_norm for p in parts]),
    )


def _fit_block(
    parameters: Parameters,
    x: Tensor,
    labels: Tensor,
    config: TaskModelConfig,
    present: Tensor | None,
    seeds: list[int] | None,
    heads: str,
    dropout: float,
) -> TaskModel:
    """`fit` for episodes whose buffers fit in the cache together."""
    # One flat tensor, of which the parameters are views: the optimiser then costs one call.
    initial = [getattr(parameters, f.name) for f in fields(parameters)]
    flat = torch.cat([p.flatten() for p in initial])
    gradient, moment, squares = (torch.zeros_like(flat) for _ in range(3))
    steps_done = torch.zeros((), device=flat.device)
    tensors, gradients = _views(flat, initial), _views(gradient, initial)
    w, a, b = tensors[0].flatten(0, 1), tensors[1].flatten(0, 1), tensors[2]
    dw, da, db = gradients[0].flatten(0, 1), gradients[1].flatten(0, 1), gradients[2]
    episodes, modalities, _, count = x.shape
    classes, hidden = a.shape[1:]
    size = min(count, config.minibatch)
    rows = _minibatches(count, config, seeds, x.device)
    z, dz = (x.new_empty(episodes * modalities, hidden, size) for _ in range(2))
    shared = (episodes, modalities * hidden, size)  # z as the multimodal head sees it
    modality_logits = x.new_empty(episodes * modalities, classes, size)
    logits = x.new_empty(episodes, classes, size)
    buffers = tuple(x.new_empty(episodes, modalities, classes, size) for _ in range(2))
    drops = _Drops(seeds, dropout, z.shape) if dropout else None
    losses = []
    for step in range(config.steps):
        xb, yb, mb = x, labels, present
        if rows is not None:
            xb = torch.take_along_dim(x, rows[step][:, None, None], 3)
            yb = torch.take_along_dim(labels, rows[step], 1)
            mb = None if present is None else torch.take_along_dim(present, rows[step][:, None], 2)
        xb = xb.flatten(0, 1)
        mask = None if mb is None else mb.flatten(0, 1)[:, None].to(x.dtype)  # [E M, 1, size]
        torch.bmm(w, xb, out=z)
        z.relu_()
        if mask is not None:
            z.mul_(mask)
        if drops is not None:
            z.mul_(drops.next().to(z.device))
        torch.bmm(a, z, out=modality_logits)
        torch.bmm(b, z.view(shared), out=logits)
        watched = step in (0, config.steps - 1)
        loss = _cross_entropy_gradient_(logits, yb, watched)
        per_modality = modality_logits.view(episodes, modalities, classes, size)
        if heads == "evidential":
            of_heads = _evidential_gradient_(per_modality, yb, mb, watched, buffers)
        else:
            of_heads = _heads_cross_entropy_gradient_(per_modality, yb, mb, watched)
        if watched:
            losses.append(loss + of_heads)
        torch.bmm(modality_logits, z.mT, out=da)
        torch.bmm(logits, z.view(shared).mT, out=db)
        torch.bmm(a.mT, modality_logits, out=dz)
        dz.view(shared).baddbmm_(b.mT, logits)
        # Where a unit was dropped z is 0, and so is its gradient; the kept ones carry their scale.
        dz.mul_(z.sign_() if drops is None else z.sign_().mul_(drops.scale))
        torch.bmm(dz, xb.mT, out=dw)
        dw[:, -1].zero_()
        adamw(
            [flat],
            [gradient],
            [moment],
            [squares],
            [],
            [steps_done],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            eps=1e-8,
            maximize=False,
        )
        tensors[0][:, :, -1, -1] = 1.0  # undo the decay of the constant unit
    norm = sum(g.square().flatten(1).sum(1) for g in gradients).sqrt()
    return TaskModel(Parameters(*tensors), (losses[-1] - losses[0]) / config.steps, norm)


class _Drops:
    """Dropout masks, step by step: 0 or 1 / (1 - p), per episode its own stream; the constant unit always stays."""

    def __init__(self, seeds: list[int] | None, p: float, shape: torch.Size):
        if seeds is None:
            raise ValueError("fit needs seeds for dropout")
        self.p, self.scale = p, 1.0 / (1.0 - p)
        self.shape = (shape[0] // len(seeds), *shape[1:])
        self.streams = [np.random.default_rng([seed, 0xD80]) for seed in seeds]

    def next(self) -> Tensor:
        """[E M, H, n]."""
        masks = np.concatenate([r.random(self.shape, np.float32) for r in self.streams]) >= self.p
        masks[:, -1] = True
        scaled = torch.from_numpy(masks).float().mul_(self.scale)
        scaled[:, -1] = 1.0
        return scaled


def _views(flat: Tensor, like: list[Tensor]) -> list[Tensor]:
    parts = flat.split([p.numel() for p in like])
    return [part.view(p.shape) for part, p in zip(parts, like, strict=True)]


def _minibatches(count: int, config: TaskModelConfig, seeds: list[int] | None, device: torch.device) -> Tensor | None:
    """Row numbers [steps, E, minibatch], or None where every step takes all the labelled rows."""
    if count <= config.minibatch:
        return None
    if seeds is None:
        raise ValueError("fit needs seeds once there are more labelled rows than one minibatch holds")
    shape = (config.steps, config.minibatch)
    draws = [np.random.default_rng([seed, count]).integers(0, count, shape) for seed in seeds]
    return torch.from_numpy(np.stack(draws, 1)).to(device)


def _cross_entropy_gradient_(logits: Tensor, labels: Tensor, watched: bool) -> Tensor | None:
    """Replace logits [E, C, n] by the gradient of the mean cross-entropy; its value [E] if `watched`."""
    at = labels[:, None]  # [E, 1, n]
    p = torch.softmax(logits, dim=1)
    loss = -p.gather(1, at)[:, 0].clamp_min(1e-12).log().mean(1) if watched else None
    count = labels.shape[1]
    torch.mul(p, 1.0 / count, out=logits)
    logits.scatter_add_(1, at, logits.new_full((), -1.0 / count).expand(at.shape))
    return loss


def _heads_cross_entropy_gradient_(
    logits: Tensor, labels: Tensor, present: Tensor | None, watched: bool
) -> Tensor | None:
    """Replace logits [E, M, C, n] by the gradient of sum_m mean_rows(-log softmax_y); the loss [E] if `watched`.

    The mean runs over the rows that have the modality.
    """
    at = labels[:, None, None].expand(-1, logits.shape[1], -1, -1)  # [E, M, 1, n]
    p = torch.softmax(logits, dim=2)
    share = logits.new_tensor(1.0 / labels.shape[1])
    if present is not None:
        share = present[:, :, None].to(logits.dtype)
        share = share / share.sum(-1, keepdim=True).clamp_min(1.0)
    loss = -(p.gather(2, at).clamp_min(1e-12).log() * share).sum((1, 2, 3)) if watched else None
    torch.mul(p, share, out=logits)
    logits.scatter_add_(2, at, (-share).expand(at.shape))
    return loss


def _evidential_gradient_(
    logits: Tensor,
    labels: Tensor,
    present: Tensor | None,
    watched: bool,
    buffers: tuple[Tensor, Tensor] | None = None,
) -> Tensor | None:
    """Replace logits [E, M, C, n] by the gradient of sum_m mean_rows(log alpha_0 - log alpha_y).

    The mean runs over the rows that have the modality. Returns the loss [E] if `watched`.
    """
    at = labels[:, None, None].expand(-1, logits.shape[1], -1, -1)  # [E, M, 1, n]
    alpha, slope = softplus_and_slope(logits, buffers)
    alpha.add_(1.0)
    strength = alpha.sum(2, keepdim=True)
    own = alpha.gather(2, at)  # alpha of the true class
    if present is None:
        share = 1.0 / labels.shape[1]
    else:
        share = present[:, :, None].to(logits.dtype)
        share = share / share.sum(-1, keepdim=True).clamp_min(1.0)
    loss = ((strength.log() - own.log()) * share).sum((1, 2, 3)) if watched else None
    # d/d logit = sigmoid(logit) (1 / alpha_0 - [true class] / alpha_y)
    at_label = slope.gather(2, at).div_(own).mul_(share)
    torch.mul(slope, strength.reciprocal_().mul_(share), out=logits)
    logits.scatter_add_(2, at, at_label.neg_())
    return loss
