"""Training of the frozen-feature task model: E classifiers from scratch, as one batched computation.

A training step is eight batched matrix products with the gradient written out: autograd's bookkeeping would cost as
much again at this size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim.adamw import adamw

from envs.models.evidence import softplus_and_slope
from envs.randomness import stream

# Episodes trained together on a processor: a block's buffers should stay in its cache.
CPU_BLOCK = 16


class Schedule(Protocol):
    """How long and how fast; the settings of `envs.models.frozen.trainer.FrozenConfig` that training reads."""

    @property
    def steps(self) -> int:
        """AdamW steps."""

    @property
    def learning_rate(self) -> float:
        """AdamW's step size."""

    @property
    def weight_decay(self) -> float:
        """AdamW's decay of the parameters towards zero."""

    @property
    def minibatch(self) -> int:
        """Labelled rows per step once there are more than this."""


@dataclass(frozen=True)
class Parameters:
    """Parameters of E models."""

    encoder: Tensor  # [E, M, H, D + 1]; the last unit is the constant one
    modality_head: Tensor  # [E, M, C, H]
    multimodal_head: Tensor  # [E, C, M H]

    def map(self, function: Callable[[Tensor], Tensor]) -> Parameters:
        """The same parameters, each passed through `function`."""
        return Parameters(*(function(getattr(self, f.name)) for f in fields(self)))

    def episodes(self, at: slice) -> Parameters:
        """The parameters of some of the models."""
        return self.map(lambda p: p[at])


@dataclass(frozen=True)
class Fitted:
    """E trained models, and how their training went."""

    parameters: Parameters
    loss_slope: Tensor  # [E] change of the training loss per step
    gradient_norm: Tensor  # [E] at the last step


@dataclass(frozen=True)
class LabelledRows:
    """What E models learn from: n rows each."""

    x: Tensor  # [E, M, D + 1, n], the last feature 1
    labels: Tensor  # int64 [E, n]
    present: Tensor | None = None  # bool [E, M, n], or None where nothing is missing

    def episodes(self, at: slice) -> LabelledRows:
        """The rows of some episodes."""
        return LabelledRows(self.x[at], self.labels[at], None if self.present is None else self.present[at])

    def take(self, rows: Tensor) -> LabelledRows:
        """Rows [E, m] of each episode."""
        return LabelledRows(
            torch.take_along_dim(self.x, rows[:, None, None], 3),
            torch.take_along_dim(self.labels, rows, 1),
            None if self.present is None else torch.take_along_dim(self.present, rows[:, None], 2),
        )


def initial_parameters(seeds: Sequence[int], modalities: int, dim: int, classes: int, hidden: int) -> Parameters:
    """He-initialised parameters, drawn per seed so that an episode's do not depend on its neighbours."""
    encoder, modality, multimodal = [], [], []
    for seed in seeds:
        rng = stream(seed, "initial parameters")
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


def fit(
    initial: Parameters,
    rows: LabelledRows,
    schedule: Schedule,
    seeds: Sequence[int] | None = None,
    heads: str = "evidential",
    dropout: float = 0.0,
) -> Fitted:
    """Train E models from `initial` (left untouched) on their labelled rows.

    Args:
        seeds: one per episode, for minibatches and dropout; needed when n > schedule.minibatch or dropout > 0.
        heads: loss of the modality heads, "evidential" or "cross_entropy" (a softmax over their logits).
        dropout: probability with which a step drops each encoder output; the others are scaled up.
    """
    episodes = rows.x.shape[0]
    block = CPU_BLOCK if rows.x.device.type == "cpu" else episodes
    parts = []
    for low in range(0, episodes, block):
        at = slice(low, low + block)
        some = None if seeds is None else seeds[at]
        training = _Training(initial.episodes(at), rows.episodes(at), schedule, heads)
        parts.append(training.run(some, dropout))
    if len(parts) == 1:
        return parts[0]
    names = [f.name for f in fields(Parameters)]
    return Fitted(
        Parameters(*(torch.cat([getattr(p.parameters, name) for p in parts]) for name in names)),
        torch.cat([p.loss_slope for p in parts]),
        torch.cat([p.gradient_norm for p in parts]),
    )


class _Training:
    """`fit` for episodes whose buffers fit in the cache together; symbols are those of `envs.models.frozen.model`."""

    def __init__(self, initial: Parameters, rows: LabelledRows, schedule: Schedule, heads: str):
        self.rows, self.schedule, self.heads = rows, schedule, heads
        # One flat tensor, of which the parameters are views: the optimiser then costs one call.
        tensors = [getattr(initial, f.name) for f in fields(initial)]
        self.flat = torch.cat([p.flatten() for p in tensors])
        self.flat_gradient, self.moment, self.squares = (torch.zeros_like(self.flat) for _ in range(3))
        self.steps_done = torch.zeros((), device=self.flat.device)
        self.parameters = Parameters(*_views(self.flat, tensors))
        self.gradient = Parameters(*_views(self.flat_gradient, tensors))
        episodes, modalities, _, count = rows.x.shape
        classes, hidden = self.parameters.modality_head.shape[2:]
        size = min(count, schedule.minibatch)
        new = rows.x.new_empty
        self.z, self.dz = (new(episodes * modalities, hidden, size) for _ in range(2))
        self.joined = (episodes, modalities * hidden, size)  # z as the multimodal head sees it
        self.modality_logits = new(episodes, modalities, classes, size)
        self.logits = new(episodes, classes, size)
        self.scratch = (torch.empty_like(self.modality_logits), torch.empty_like(self.modality_logits))

    def run(self, seeds: Sequence[int] | None, dropout: float) -> Fitted:
        """All the steps."""
        last, count = self.schedule.steps - 1, self.rows.labels.shape[1]
        minibatches = _minibatches(count, self.schedule, seeds, self.flat.device)
        drops = _Drops(seeds, dropout, self.z.shape) if dropout else None
        losses = []
        for step in range(self.schedule.steps):
            batch = self.rows if minibatches is None else self.rows.take(minibatches[step])
            self.forward(batch, drops)
            loss = self.differentiate(batch, watched=step in (0, last))
            if loss is not None:
                losses.append(loss)
            self.backward(batch, drops)
            self.update()
        gradients = (getattr(self.gradient, f.name) for f in fields(Parameters))
        norm = sum(g.square().flatten(1).sum(1) for g in gradients).sqrt()
        return Fitted(self.parameters, (losses[-1] - losses[0]) / self.schedule.steps, norm)

    def forward(self, batch: LabelledRows, drops: _Drops | None) -> None:
        """z = relu(W x), and the logits of all heads."""
        z = self.z
        torch.bmm(self.parameters.encoder.flatten(0, 1), batch.x.flatten(0, 1), out=z)
        z.relu_()
        if batch.present is not None:
            z.mul_(batch.present.flatten(0, 1)[:, None].to(z.dtype))
        if drops is not None:
            z.mul_(drops.next().to(z.device))
        torch.bmm(self.parameters.modality_head.flatten(0, 1), z, out=self.modality_logits.flatten(0, 1))
        torch.bmm(self.parameters.multimodal_head, z.view(self.joined), out=self.logits)

    def differentiate(self, batch: LabelledRows, watched: bool) -> Tensor | None:
        """Replace logits by the loss's gradient in them; the loss [E] if `watched`."""
        loss = _cross_entropy_gradient_(self.logits, batch.labels, watched)
        if self.heads == "evidential":
            own = _evidential_gradient_(self.modality_logits, batch.labels, batch.present, watched, self.scratch)
        else:
            own = _heads_cross_entropy_gradient_(self.modality_logits, batch.labels, batch.present, watched)
        return None if loss is None or own is None else loss + own

    def backward(self, batch: LabelledRows, drops: _Drops | None) -> None:
        """The gradient in the parameters; z is used up."""
        z, dz, parameters, gradient = self.z, self.dz, self.parameters, self.gradient
        of_heads, dw = self.modality_logits.flatten(0, 1), gradient.encoder.flatten(0, 1)
        torch.bmm(of_heads, z.mT, out=gradient.modality_head.flatten(0, 1))
        torch.bmm(self.logits, z.view(self.joined).mT, out=gradient.multimodal_head)
        torch.bmm(parameters.modality_head.flatten(0, 1).mT, of_heads, out=dz)
        dz.view(self.joined).baddbmm_(parameters.multimodal_head.mT, self.logits)
        # Where a unit was dropped z is 0, and so is its gradient; the kept ones carry their scale.
        dz.mul_(z.sign_() if drops is None else z.sign_().mul_(drops.scale))
        torch.bmm(dz, batch.x.flatten(0, 1).mT, out=dw)
        dw[:, -1].zero_()

    def update(self) -> None:
        """One step of AdamW."""
        adamw(
            [self.flat],
            [self.flat_gradient],
            [self.moment],
            [self.squares],
            [],
            [self.steps_done],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.schedule.learning_rate,
            weight_decay=self.schedule.weight_decay,
            eps=1e-8,
            maximize=False,
        )
        self.parameters.encoder[:, :, -1, -1] = 1.0  # undo the decay of the constant unit


class _Drops:
    """Dropout masks, step by step: 0 or 1 / (1 - p), per episode its own stream; the constant unit always stays."""

    def __init__(self, seeds: Sequence[int] | None, p: float, shape: torch.Size):
        if seeds is None:
            raise ValueError("fit needs seeds for dropout")
        self.p, self.scale = p, 1.0 / (1.0 - p)
        self.shape = (shape[0] // len(seeds), *shape[1:])
        self.streams = [stream(seed, "dropout") for seed in seeds]

    def next(self) -> Tensor:
        """The next step's mask, [E M, H, n]."""
        masks = np.concatenate([r.random(self.shape, np.float32) for r in self.streams]) >= self.p
        masks[:, -1] = True
        scaled = torch.from_numpy(masks).float().mul_(self.scale)
        scaled[:, -1] = 1.0
        return scaled


def _views(flat: Tensor, like: list[Tensor]) -> list[Tensor]:
    parts = flat.split([p.numel() for p in like])
    return [part.view(p.shape) for part, p in zip(parts, like, strict=True)]


def _minibatches(count: int, schedule: Schedule, seeds: Sequence[int] | None, device: torch.device) -> Tensor | None:
    """Row numbers [steps, E, minibatch], or None where every step takes all the labelled rows."""
    if count <= schedule.minibatch:
        return None
    if seeds is None:
        raise ValueError("fit needs seeds once there are more labelled rows than one minibatch holds")
    shape = (schedule.steps, schedule.minibatch)
    draws = [stream(seed, "minibatches", count).integers(0, count, shape) for seed in seeds]
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
        share: Tensor | float = 1.0 / labels.shape[1]
    else:
        share = present[:, :, None].to(logits.dtype)
        share = share / share.sum(-1, keepdim=True).clamp_min(1.0)
    loss = ((strength.log() - own.log()) * share).sum((1, 2, 3)) if watched else None
    # d/d logit = sigmoid(logit) (1 / alpha_0 - [true class] / alpha_y)
    at_label = slope.gather(2, at).div_(own).mul_(share)
    torch.mul(slope, strength.reciprocal_().mul_(share), out=logits)
    logits.scatter_add_(2, at, at_label.neg_())
    return loss
