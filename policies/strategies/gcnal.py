"""GCNAL: UncertainGCN (Caramalau et al., CVPR 2021, arXiv 2006.10219), a graph network that tells labelled apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from envs.round import Round
from policies.strategies.picking import largest

# As published.
SUBSET = 10_000  # unlabelled samples in the graph, at most
UNITS = 128
DROPOUT = 0.3
EPOCHS = 200
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 5e-4
UNLABELLED_WEIGHT = 1.2  # lambda
SCORE_MARGIN = 0.1  # s_margin

_DROPPED_BELOW = round((DROPOUT - 0.5) * 2**16)  # among the 16-bit integers


def gcnal(round_: Round, batch_size: int) -> Tensor:
    """The samples whose probability s of being labelled is nearest to 0.1; picks [E, b].

    A two-layer graph network over the normalised embeddings of the labelled and of up to 10,000 unlabelled samples
    (a random subset beyond that, as published) learns which are labelled. As in the authors' code the smallest
    |s - s_margin| are picked: samples that the network takes for unlabelled with confidence.
    """
    count = min(int(round_.available[0].sum()), max(SUBSET, batch_size))
    keys = round_.uniforms("gcnal subset", round_.available.shape[1])
    unlabelled = keys.masked_fill(~round_.available, -1.0).topk(count, dim=1).indices.sort(1).values
    outputs = round_.outputs_at(torch.cat([unlabelled, round_.labelled], 1))
    graph = Graph(torch.nn.functional.normalize(outputs.embedding(), dim=1))
    score = labelled_probability(graph, count, round_)[:, :count]
    scores = torch.full_like(keys, -torch.inf, dtype=score.dtype)
    return largest(scores.scatter_(1, unlabelled, -(score - SCORE_MARGIN).abs()), round_, batch_size)


class Graph:
    """The adjacency A = (X^T X - I) / column sums + I of cosine similarities, as a product that needs no n x n matrix.

    Args:
        x: unit columns, not negative, [E, D, n].
    """

    def __init__(self, x: Tensor):
        self.x = x
        sums = (x * x.sum(2, keepdim=True)).sum(1) - x.square().sum(1)
        # A node that is like no other keeps to itself.
        self.share = torch.where(sums > 1e-6, 1.0 / sums.clamp_min(1e-6), 0.0)[:, None]  # [E, 1, n]

    def spread(self, h: Tensor) -> Tensor:
        """(A h^T)^T for h [E, K, n]."""
        scaled = h * self.share
        return torch.bmm(torch.bmm(scaled, self.x.mT), self.x) - scaled + h

    def collect(self, h: Tensor) -> Tensor:
        """(A^T h^T)^T for h [E, K, n]."""
        return (torch.bmm(torch.bmm(h, self.x.mT), self.x) - h) * self.share + h


def labelled_probability(graph: Graph, unlabelled: int, round_: Round) -> Tensor:
    """Train the network and return its output for the nodes, the first `unlabelled` of which are unlabelled, [E, n].

    Layer 1's message passing acts on constants and is done once. The loss is the mean binary cross-entropy of the
    labelled nodes plus lambda times that of the unlabelled ones; its gradient is written out.
    """
    episodes, _, nodes = graph.x.shape
    one = graph.x.new_ones(episodes, 1, nodes)
    x = torch.cat([graph.spread(graph.x), one], 1)  # [E, D + 1, n], the bias last
    width = x.shape[1]
    used = UNITS * width + UNITS + 1
    # Whole vector registers per episode: the optimiser's arithmetic must not depend on an episode's place.
    size = -(-used // 64) * 64
    drawn = round_.uniforms("gcnal", size).to(x) * 2.0 - 1.0
    drawn[:, : UNITS * width] *= UNITS**-0.5  # bounds of one over the root of the units that a layer leads to
    parameters = drawn.flatten()
    gradient = torch.zeros_like(parameters)
    parameters.grad = gradient
    w, v, c = _views(parameters.view(episodes, size), width)
    dw, dv, dc = _views(gradient.view(episodes, size), width)
    optimiser = torch.optim.Adam([parameters], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    masks = _Dropout(round_, (UNITS, nodes), x)
    hidden, gate = (x.new_empty(episodes, UNITS, nodes) for _ in range(2))
    for _ in range(EPOCHS):
        torch.bmm(w, x, out=hidden)
        torch.sign(hidden.relu_(), out=gate).mul_(masks.draw())
        hidden.mul_(gate)
        error = torch.sigmoid(graph.spread(torch.bmm(v, hidden)) + c)  # [E, 1, n]
        error[..., :unlabelled] *= UNLABELLED_WEIGHT / unlabelled
        error[..., unlabelled:] -= 1.0
        error[..., unlabelled:] /= nodes - unlabelled
        dc.copy_(error.sum(2, keepdim=True))
        back = graph.collect(error)
        torch.bmm(back, hidden.mT, out=dv)
        torch.bmm(gate.mul_(back), x.mT, out=dw)
        dw.mul_(v.mT)
        optimiser.step()
    hidden = torch.bmm(w, x).relu_()
    return torch.sigmoid(graph.spread(torch.bmm(v, hidden)) + c)[:, 0]


def _views(flat: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of layer 1 [E, UNITS, D + 1], of layer 2 [E, 1, UNITS], and its bias [E, 1, 1], in flat [E, size]."""
    at = UNITS * width
    return flat[:, :at].unflatten(1, (UNITS, width)), flat[:, None, at : at + UNITS], flat[:, at + UNITS, None, None]


class _Dropout:
    """Dropout masks, the same for copies of a start; drawn one epoch at a time, for all of them would not fit.

    Args:
        shape: of one episode's mask.
        like: for device and type.
    """

    def __init__(self, round_: Round, shape: tuple[int, int], like: Tensor):
        self.seeds, self.shape = round_.seeds, shape
        keys = (round_.uniforms("gcnal dropout", 1)[:, 0] * 2.0**53).long().tolist()
        self.generators = {seed: np.random.default_rng(key) for seed, key in zip(self.seeds, keys, strict=True)}
        self.mask = like.new_empty(len(self.seeds), *shape)

    def draw(self) -> Tensor:
        """[E, *shape] of 0 and 1 / (1 - DROPOUT); overwritten by the next draw."""
        drawn: dict[int, Tensor] = {}
        for seed, mask in zip(self.seeds, self.mask, strict=True):
            if seed in drawn:
                mask.copy_(drawn[seed])
                continue
            # Sixteen random bits decide about a unit: a float for each would take as long as a matrix product.
            bits = self.generators[seed].integers(-(2**15), 2**15, self.shape, np.int16)
            drawn[seed] = torch.ge(torch.from_numpy(bits).to(mask.device), _DROPPED_BELOW, out=mask)
        return self.mask.mul_(1.0 / (1.0 - DROPOUT))
