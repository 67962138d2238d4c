"""Where training starts: a selection network with the weights that `policy.initial` names.

A saved policy holds its own weights, so nothing here decides what it does.
"""

from __future__ import annotations

from typing import Any

import torch

from envs.errors import PolicyError
from policies.policy_file import PolicyCard, load_policy, pretrained_policy
from policies.selector import Selector, SelectorConfig

HALFWAY = 0.5  # of an episode's progress, which runs from 0 to 1

# Weights by name, "feature*progress" a change over the episode; those without a name are 0.
_WEIGHTS: dict[str, dict[str, float]] = {
    "badge": {"gradient_distance": 1.0},
    "hand_tuned": {
        "margin": 1.0,
        "density": 2.0,
        "density*progress": -2.0,
        "gradient_distance": 1.0,
        "batch_distance": 2.0,
        "batch_distance*progress": -2.0,
    },
    "zero": {},
}


def initial_selector(config: SelectorConfig) -> Selector:
    """The policy that training starts from.

    Weights are taken by the names of features and entries of the state; what has no weight under its name starts at 0.
    An MLP starts at random where it is all that the policy has, else at an output of 0.

    Raises:
        PolicyError: where the policy that ships is to be the start, and its files are missing or damaged.
    """
    selector = Selector(config)
    if not config.linear:
        return selector
    named = _shipped_weights(config) if starts_from_shipped(config) else _WEIGHTS[config.initial]
    columns = ["", *(f"*{state}" for state in config.state)]
    rows = [[named.get(name + column, 0.0) for column in columns] for name in selector.names]
    with torch.no_grad():
        selector.weights.copy_(torch.tensor(rows))
    return selector


def starts_from_shipped(config: SelectorConfig) -> bool:
    """Whether training takes weights of the policy that ships."""
    return config.linear and config.initial == "pretrained"


def seen_before(config: SelectorConfig) -> list[dict[str, Any]]:
    """The sources that the policy was trained on which training starts from, as `PolicyCard.trained_on` has them.

    Raises:
        PolicyError: as `initial_selector`.
    """
    return _shipped()[1].trained_on if starts_from_shipped(config) else []


def describe_start(config: SelectorConfig) -> str:
    """One line: what training starts from, and which weights that lacks or leaves out.

    Raises:
        PolicyError: as `initial_selector`.
    """
    if not config.linear:
        return "start      random weights: an MLP alone takes none from another policy"
    beside = "; the MLP adds nothing yet" if config.mlp else ""
    if not starts_from_shipped(config):
        return f"start      the weights of policy.initial: {config.initial}{beside}"
    shipped = _shipped()[0]
    names, own = config.features + config.batch_features, shipped.names
    shared = sum(name in own for name in names)
    parts = [f"start      the policy that ships: {shared} of its {len(own)} features"]
    if new := [name for name in names if name not in own]:
        parts.append(f"at 0: {', '.join(new)}")
    if unused := [name for name in own if name not in names]:
        parts.append(f"without {', '.join(unused)}")
    if "progress" in shipped.config.state and "progress" not in config.state:
        parts.append("its weights halfway through an episode")
    return "; ".join(parts) + beside


def _shipped_weights(config: SelectorConfig) -> dict[str, float]:
    """The shipped policy's weights by name; for a policy that is blind to progress, those of half an episode."""
    named = _shipped()[0].named_weights()
    if "progress" in config.state:
        return named
    return {name: weight + HALFWAY * named.get(f"{name}*progress", 0.0) for name, weight in named.items()}


def _shipped() -> tuple[Selector, PolicyCard]:
    try:
        return load_policy(pretrained_policy())
    except PolicyError as error:
        raise PolicyError(f"{error} Training would start from it: set policy.initial=badge to start without.") from None
