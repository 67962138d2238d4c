"""Generalised coverage, and two strategies that maximise it greedily: MaxHerding and ProbCover.

MaxHerding: Bae et al. 2024, "Generalized Coverage for More Robust Low-Budget Active Learning" (ECCV, arXiv 2407.12212).
ProbCover: Yehuda et al. 2022, "Active Learning Through a Covering Lens" (NeurIPS, arXiv 2205.11320); as Bae et al.
show, it is the case of a kernel that is 1 within a radius and 0 beyond. Both see self-supervised features of unit
length; here the pool's input features stand for them, all modalities side by side, each sample scaled to length 1 as a
whole. Neither looks at the task model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from envs.kmeanspp import BLOCK, squared_distances
from envs.models.base import per_episode
from envs.round import Round
from policies.strategies.clustering import Clusters, clusters_of
from policies.strategies.coreset import distance_to_labelled

IMPURE = 0.05  # share of the samples whose ball may hold another cluster's: 1 - alpha of ProbCover, as published
ROWS = 64  # candidates whose gain is computed at a time
RESOLUTION = 1e-3  # between rows of length 1; what is nearer than this is rounding
HAIR = 1e-4  # by which balls are smaller than they might be: the sample at their edge must stay outside

Kernel = Callable[[Tensor], Tensor]


def gaussian(squared: Tensor) -> Tensor:
    """exp(-d^2) of squared distances, in units of the radius."""
    return squared.neg().exp_()


def ball(squared: Tensor) -> Tensor:
    """1 within a distance of 1, else 0."""
    return (squared < 1.0).to(squared.dtype)


def maxherding(round_: Round, batch_size: int) -> Tensor:
    """The greedy maximum of the Gaussian coverage of the pool, radius 1; picks [E, b].

    The pick maximises sum over y of max(k(x, y) - max over the labelled and picked l of k(l, y), 0), with
    k(x, y) = exp(-||x - y||^2). The authors cap the candidates at 35,000; here there is no cap.
    """
    points = per_episode(unit_inputs(round_), round_.episodes)
    everything = torch.ones_like(points[:, 0])
    return herd(round_, Coverage(round_, points, gaussian, everything), torch.zeros_like(everything), batch_size)


def probcover(round_: Round, batch_size: int) -> Tensor:
    """The sample with the most samples around it that no labelled or picked one covers, b times; picks [E, b].

    A ball covers the samples nearer than the radius of `pure_radius`, one for the whole episode. The authors search for
    it on a grid; here it is exact. Equal counts, of which there are many once the dense parts are covered, are decided
    by chance: by position they would follow the order of the file.
    """
    # Round 0's draws, so that the radius is the same in all rounds.
    draws = replace(round_, index=0).uniforms("probcover", min(round_.num_classes, round_.available.shape[1]))
    points = unit_inputs(round_)
    copies = round_.episodes // len(points)
    radius = pure_radius(points, clusters_of(points, draws[::copies]))
    points = per_episode(points / radius[:, None, None], round_.episodes)
    everything = torch.ones_like(points[:, 0])
    ties = 0.5 * round_.uniforms("probcover ties", everything.shape[1]).to(everything)  # less than one sample
    return herd(round_, Coverage(round_, points, ball, everything), ties, batch_size)


def unit_inputs(round_: Round) -> Tensor:
    """The pool's input features, each sample scaled to length 1, [S, D, P]."""
    return torch.nn.functional.normalize(round_.model.inputs(), dim=1)


def pure_radius(points: Tensor, clusters: Clusters) -> Tensor:
    """The largest radius at which at most 5 % of the samples have one of another cluster within it, [S].

    ProbCover, section 3.3: clusters by k-means, as many as classes, stand for the classes.

    Args:
        points: [S, D, P].
        clusters: of the points.
    """
    squared = points.square().sum(1)
    nearest = []
    for rows in torch.arange(points.shape[2], device=points.device).split(_rows(points)):
        distance = squared_distances(points[:, :, rows], points, squared)
        same = clusters.of[:, rows, None] == clusters.of[:, None]
        nearest.append(distance.masked_fill_(same, torch.inf).amin(2))
    impure = int(IMPURE * points.shape[2])
    limit = torch.cat(nearest, 1).kthvalue(impure + 1, dim=1).values
    return limit.clamp_min(0.0).sqrt().mul(1.0 - HAIR).clamp_min(RESOLUTION)


class Coverage:
    """sum over y of weight(y) * max over the chosen x of k(x, y), and what one more x adds to it.

    Args:
        round_: whose labelled samples are the first that are chosen.
        points: [E, D, P], in units of the kernel's radius.
        kernel: of the squared distance; falls with it.
        weights: [E, P] >= 0.
    """

    def __init__(self, round_: Round, points: Tensor, kernel: Kernel, weights: Tensor):
        self.points, self.kernel, self.weights = points, kernel, weights
        self.squared = points.square().sum(1)
        self.covered = kernel(distance_to_labelled(round_, points, self.squared))  # [E, P]

    def similarity(self, rows: Tensor) -> Tensor:
        """k(x, y) of rows x [E, K] and the whole pool, [E, K, P]."""
        distance = squared_distances(torch.take_along_dim(self.points, rows[:, None], 2), self.points, self.squared)
        # Products leave rounding errors, which a small radius magnifies: each row's own 0 is set.
        return self.kernel(distance.clamp_min_(0.0).scatter_(2, rows[..., None], 0.0))

    def gain(self, rows: Tensor) -> Tensor:
        """What each of rows [E, K] would add, [E, K]."""
        added = self.similarity(rows).sub_(self.covered[:, None]).clamp_min_(0.0)
        return torch.bmm(added, self.weights[..., None])[..., 0]

    def add(self, row: Tensor) -> None:
        """Choose row [E, 1] of each episode."""
        self.covered = torch.maximum(self.covered, self.similarity(row)[:, 0])


def herd(round_: Round, coverage: Coverage, ties: Tensor, batch_size: int) -> Tensor:
    """The available sample that adds the most to the coverage, b times; picks [E, b].

    No gain grows as more is covered, so an old one is a bound: only the largest are computed anew until the largest of
    all is up to date (Minoux 1978). The picks are those of computing them all, up to rounding.

    Args:
        ties: [E, P], added to the gains.
    """
    bound = ties.masked_fill(~round_.available, -torch.inf)
    size = _rows(coverage.points)
    for rows in torch.arange(bound.shape[1], device=bound.device).split(size):
        bound[:, rows] += coverage.gain(rows.expand(len(bound), -1))
    current = torch.ones_like(round_.available)
    picks = []
    with round_.stopwatch.measure("picking"):
        for _ in range(batch_size):
            while True:
                best = bound.argmax(1, keepdim=True)
                done = current.gather(1, best)
                if bool(done.all()):
                    break
                rows = bound.masked_fill(current, -torch.inf).topk(min(size, bound.shape[1]), dim=1).indices
                old = bound.gather(1, rows)
                # Episodes that are done wait: what is beside an episode must not decide what it computes.
                keep = done | (old == -torch.inf)
                fresh = coverage.gain(rows) + ties.gather(1, rows)
                bound.scatter_(1, rows, torch.where(keep, old, fresh))
                current.scatter_(1, rows, True)
            picks.append(best)
            bound.scatter_(1, best, -torch.inf)
            current.zero_()
            coverage.add(best)
        return torch.cat(picks, 1)


def _rows(points: Tensor) -> int:
    """How many rows of [E, D, P] are compared with all the others at a time."""
    return min(ROWS, max(BLOCK // points.shape[2], 1))
