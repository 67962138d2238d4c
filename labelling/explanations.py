"""Why a sample was chosen, in plain words: which of the policy's features weighed most for it."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.candidates import FEATURES, Feature
from policies.batch_features import BATCH_FEATURES, BatchAware, BatchFeature
from policies.selector import Selector

MEASURES = "drawn at random, to measure the accuracy"
COVERS = "typical of a part of the pool that has no label yet"
UNNAMED = "the policy's highest score"
TOGETHER = "its features taken together"  # the MLP's part, which no single feature accounts for
SHOWN = 2  # reasons per sample, at most
LEAST = 0.15  # share of what spoke for a sample, below which a further reason is not worth a word


def contributions(selector: Selector, observation: dict[str, Tensor], slots: Tensor) -> tuple[Tensor, Tensor]:
    """What each feature added to the utility of each pick, compared with the mean candidate at that moment.

    Args:
        selector: a policy with linear weights.
        observation: `envs.candidates.offer.Candidates.observation()` of one episode.
        slots: int64 [1, b] picks in their order.

    Returns:
        Contributions [b, F] and feature values less their mean [b, F], features as in `selector.names`.
    """
    factors = selector.factors(observation["state"].float())
    weights = (selector.weights.detach() * factors[:, None]).sum(2)[0]  # [F]
    valid = observation["valid"][0] > 0
    static = observation["features"].float()[0]  # [K, F]
    values = static[slots[0]] - static[valid].mean(0)
    if selector.config.batch_features:
        aware = BatchAware(observation, selector.config.batch_features)
        moving = []
        for slot in slots[0]:
            current = aware.current()[0]
            moving.append(current[slot] - current[valid].mean(0))
            aware.add(slot[None])
        values = torch.cat([values, torch.stack(moving)], 1)
    return values * weights, values


def in_words(selector: Selector, observation: dict[str, Tensor], slots: Tensor) -> list[str]:
    """One line for each pick, such as "far from everything labelled (45 %); modalities disagree (30 %)".

    The percentages are shares of all that spoke for the sample.
    """
    if not selector.config.linear:
        return [UNNAMED] * slots.shape[1]
    parts, values = contributions(selector, observation, slots)
    residuals = _residuals(selector, observation, slots)
    topics = _topics(selector)
    lines = []
    for part, value, residual in zip(parts, values, residuals.tolist(), strict=True):
        spoke = [(residual, TOGETHER)]
        spoke += [(float(part[at].sum()), high if value[at[0]] > 0 else low) for (high, low), at in topics.items()]
        spoke = sorted((pair for pair in spoke if pair[0] > 0), reverse=True)
        total = sum(amount for amount, _ in spoke)
        named = [(a / total, w) for i, (a, w) in enumerate(spoke[:SHOWN]) if i == 0 or a / total >= LEAST]
        lines.append("; ".join(f"{words} ({share:.0%})" for share, words in named) or UNNAMED)
    return lines


def _topics(selector: Selector) -> dict[tuple[str, str], list[int]]:
    """Places in `selector.names` by the words for high and low: features that share their words are one reason.

    The first feature of a reason decides which words hold.
    """
    topics: dict[tuple[str, str], list[int]] = {}
    found: dict[str, Feature | type[BatchFeature]] = {name: FEATURES.find(name) for name in selector.config.features}
    found |= {name: BATCH_FEATURES.find(name) for name in selector.config.batch_features}
    ours = [*FEATURES, *BATCH_FEATURES]
    for name in sorted(found, key=lambda name: ours.index(name) if name in ours else len(ours)):
        topics.setdefault(found[name].words, []).append(selector.names.index(name))
    return topics


def _residuals(selector: Selector, observation: dict[str, Tensor], slots: Tensor) -> Tensor:
    """What the MLP added to the utility of each pick, compared with the mean candidate, [b]; zeros without one."""
    with torch.no_grad():
        residual = selector.residual(observation)
    if residual is None:
        return torch.zeros(slots.shape[1])
    return residual[0, slots[0]] - residual[0, observation["valid"][0] > 0].mean()
