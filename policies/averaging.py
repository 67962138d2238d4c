"""One policy from several: the mean of their weight vectors, each scaled to unit norm first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envs.errors import PolicyError
from policies.policy_file import PolicyCard, load_policy
from policies.selector import Selector

# Norm of exported weights. Greedy picks do not depend on it; how sharp a drawn batch is, as in REINFORCE, does.
EXPORT_NORM = 2.5


def rescaled(weights: Tensor, norm: float = EXPORT_NORM) -> Tensor:
    """Weights with this Euclidean norm; zeros stay zeros."""
    return weights * (norm / weights.norm().clamp_min(1e-12))


def average_policies(paths: Sequence[str | Path]) -> tuple[Selector, PolicyCard]:
    """The mean of the unit-norm weights of linear policies, and its card.

    Training seeds give different policies; their average is better than most of them, and policies of several data
    sets average into one for data that none of them saw.

    Args:
        paths: run folders, policy folders or files.

    Raises:
        PolicyError: where there are fewer than two, or they are not linear policies on the same features and
            candidates.
    """
    if len(paths) < 2:
        raise PolicyError(f"An average needs at least 2 policies; got {len(paths)}.")
    loaded = [load_policy(path) for path in paths]
    first, first_card = loaded[0]
    for path, (selector, card) in zip(paths, loaded, strict=True):
        if not selector.config.only_linear:
            raise PolicyError(f"The policy at {path} is not linear; only linear policies can be averaged.")
        if selector.names != first.names:
            differing = sorted(set(selector.names) ^ set(first.names)) or ["their order"]
            raise PolicyError(
                f"The policies at {paths[0]} and {path} differ in features ({', '.join(differing)}); "
                "average policies with the same features."
            )
        if card.candidates != first_card.candidates:
            raise PolicyError(
                f"The policies at {paths[0]} and {path} choose from other candidates ({first_card.candidates} and "
                f"{card.candidates}); average policies with the same ones."
            )
        if not bool(selector.weights.any()):
            raise PolicyError(f"The weights of the policy at {path} are all 0; it has no direction to average.")
    mean = Selector(first.config)
    with torch.no_grad():
        units = torch.stack([rescaled(selector.weights.double(), 1.0) for selector, _ in loaded])
        mean.weights.copy_(rescaled(units.mean(0)))
    return mean.eval(), _card_of_average([card for _, card in loaded])


def _card_of_average(cards: Sequence[PolicyCard]) -> PolicyCard:
    sources: list[dict[str, Any]] = []
    for source in (source for card in cards for source in card.trained_on):
        if source.get("fingerprint"):
            # The rows that train policies depend on the pool alone: the same pool twice is not twice as many labels.
            if source not in sources:
                sources.append(source)
            continue
        family = next((s for s in sources if not s.get("fingerprint") and s.get("name") == source.get("name")), None)
        if family is None:
            sources.append(dict(source))
        else:  # other pools of it
            family["labels"] = family.get("labels", 0) + source.get("labels", 0)
    before = [source for card in cards for source in card.pretrained_on]
    presets = {card.preset for card in cards}
    seeds = {card.seed for card in cards}
    return PolicyCard(
        candidates=cards[0].candidates,
        trained_on=sources,
        pretrained_on=[source for i, source in enumerate(before) if source not in before[:i]],
        labels_used=sum(source.get("labels", 0) for source in sources),
        episodes=sum(card.episodes for card in cards),
        seed=seeds.pop() if len(seeds) == 1 else None,
        preset=presets.pop() if len(presets) == 1 else "several",
        versions={k: v for k, v in cards[0].versions.items() if all(card.versions.get(k) == v for card in cards)},
        algorithm="average",
        training_seconds=sum(card.training_seconds or 0.0 for card in cards),
        parents=[{k: v for k, v in asdict(card).items() if k not in ("candidates", "versions")} for card in cards],
    )
