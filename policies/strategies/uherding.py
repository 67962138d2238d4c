"""Uncertainty Herding (Bae, Oliveira & Sutherland, ICLR 2025, arXiv 2412.20644): coverage weighed by uncertainty.

It moves from representative samples at small budgets to uncertain ones at large budgets by itself: a temperature makes
uncertainties alike as long as little is known, and the kernel's radius shrinks as labels get denser. Coverage is that
of MaxHerding on the same features; the uncertainty is 1 - margin of the task model's multimodal softmax, not of its
evidential heads, for that is the head whose accuracy counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.kmeanspp import BLOCK
from envs.models.accuracy import calibration_error
from envs.models.base import per_episode
from envs.round import Round
from policies.strategies.coverage import RESOLUTION, Coverage, gaussian, herd, unit_inputs

# As in the authors' code.
HELD_OUT = 0.3  # share of the labels, the last ones bought, that the temperature is chosen on
TEMPERATURES = tuple(1.0 + 0.1 * i for i in range(190))
ECE_BINS = 15

LEAST = 1e-6  # uncertainty; where a model is sure of everything, coverage decides


def uherding(round_: Round, batch_size: int) -> Tensor:
    """The greedy maximum of the uncertainty-weighted Gaussian coverage of the pool; picks [E, b]."""
    weights = uncertainty(round_.outputs.logits, temperature(round_))
    points = per_episode(unit_inputs(round_), round_.episodes)
    points = points / label_radius(points, round_.labelled)[:, None, None]
    return herd(round_, Coverage(round_, points, gaussian, weights), torch.zeros_like(weights), batch_size)


def uncertainty(logits: Tensor, temperatures: Tensor) -> Tensor:
    """1 - (p_1 - p_2) of the two most probable classes of softmax(logits / temperature), [E, P]."""
    top = torch.softmax(logits / temperatures[:, None, None], 1).topk(2, dim=1).values
    return (1.0 - (top[:, 0] - top[:, 1])).clamp_min_(LEAST)


def temperature(round_: Round) -> Tensor:
    """The temperature at which models that learned from the first 70 % of the labels are calibrated best, [E].

    The last 30 % measure that; of equally good temperatures, the lowest. With one label alone it is 1.
    """
    count = round_.labelled.shape[1]
    best = torch.ones(round_.episodes, device=round_.labelled.device)
    if count == 1:
        return best
    first = count - max(int(HELD_OUT * count), 1)
    logits = round_.refitted(first=first).outputs_at(round_.labelled[:, first:]).logits  # [E, C, n - first]
    correct = (logits.argmax(1) == round_.labels[:, first:]).to(logits.dtype)
    behind = logits - logits.amax(1, keepdim=True)
    least = torch.full_like(best, torch.inf)
    for t in TEMPERATURES:
        error = calibration_error(1.0 / (behind / t).exp().sum(1), correct, ECE_BINS)
        best = torch.where(error < least, t, best)
        least = torch.minimum(error, least)
    return best


def label_radius(points: Tensor, labelled: Tensor) -> Tensor:
    """The smallest distance above 0 between two labelled samples, [E]; 1, as MaxHerding's, where there is none.

    Args:
        points: [E, D, P].
        labelled: positions [E, n].
    """
    rows = torch.take_along_dim(points, labelled[:, None], 2).mT.contiguous()  # [E, n, D]
    nearest = rows.new_full((len(rows),), torch.inf)
    for some in rows.split(max(BLOCK // rows.shape[1], 1), dim=1):
        # Products would leave rounding errors between duplicates, which must count as 0.
        distance = torch.cdist(some, rows, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = torch.minimum(nearest, distance.masked_fill_(distance < RESOLUTION, torch.inf).amin((1, 2)))
    return torch.where(nearest.isinf(), 1.0, nearest)
