"""Why a sample was chosen, in plain words: which of the policy's features weighed most for it."""

from __future__ import annotations

import torch
from torch import Tensor

from envs.candidates.offer import STATE_NAMES
from policies.batch_features import BatchAware
from policies.selector import Selector

MEASURES = "drawn at random, to measure the accuracy"
COVERS = "typical of a part of the pool that has no label yet"
UNNAMED = "the policy's highest score"
SHOWN = 2  # reasons per sample, at most
LEAST = 0.15  # share of what spoke for a sample, below which a further reason is not worth a word

# Features that say nearly the same are one reason: (features, words where they are high, words where they are low).
# The first feature decides which words hold.
REASONS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        (
            *("margin", "entropy", "difficulty", "mean_uncertainty", "max_uncertainty", "min_uncertainty"),
            *("weighted_uncertainty", "score"),
        ),
        "the model is less sure of its class than of others'",
        "the model is surer of its class than of others'",
    ),
    (("vacuity",), "the model has seen little like it", "the model has seen much like it"),
    (("disagreement",), "modalities disagree", "modalities agree"),
    (("density",), "many samples are like it", "few samples are like it"),
    (
        ("labelled_distance", "coreset_distance", "diversity"),
        "far from everything labelled",
        "close to labelled samples",
    ),
    (("rarity",), "its predicted class has few labels", "its predicted class has many labels"),
    (
        ("neighbour_agreement",),
        "labelled neighbours share its predicted class",
        "labelled neighbours contradict its predicted class",
    ),
    (("neighbour_loss",), "labels around it contradict each other", "labels around it are consistent"),
    (("gradient_distance", "batch_distance"), "unlike the others in this batch", "like the others in this batch"),
    (("class_share",), "predicted class as of others in this batch", "predicted class is rare in this batch"),
    (("coverage_gain",), "stands for many other samples", "stands for few other samples"),
)


def contributions(selector: Selector, observation: dict[str, Tensor], slots: Tensor) -> tuple[Tensor, Tensor]:
    """What each feature added to the utility of each pick, compared with the mean candidate at that moment.

    Args:
        selector: a policy with linear weights.
        observation: `envs.candidates.offer.Candidates.observation()` of one episode.
        slots: int64 [1, b] picks in their order.

    Returns:
        Contributions [b, F] and feature values less their mean [b, F], features as in `selector.names`.
    """
    state = observation["state"].float()
    entries = [STATE_NAMES.index(name) for name in selector.config.state]
    factors = torch.cat([torch.ones_like(state[:, :1]), state[:, entries]], 1)
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
    topics = []
    for names, high, low in REASONS:
        at = [selector.names.index(name) for name in names if name in selector.names]
        if at:
            topics.append((at, high, low))
    lines = []
    for part, value in zip(parts, values, strict=True):
        spoke = [(float(part[at].sum()), high if value[at[0]] > 0 else low) for at, high, low in topics]
        spoke = sorted((pair for pair in spoke if pair[0] > 0), reverse=True)
        total = sum(amount for amount, _ in spoke)
        named = [(a / total, w) for i, (a, w) in enumerate(spoke[:SHOWN]) if i == 0 or a / total >= LEAST]
        lines.append("; ".join(f"{words} ({share:.0%})" for share, words in named) or UNNAMED)
    return lines
