"""What the policy picked while it explored, as values for histograms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST = 20_000  # values of a histogram; of more, evenly spaced ones stand for all


def drawn_values(
    picked: Sequence[np.ndarray], infos: Sequence[Sequence[Mapping[str, Any]]], features: Sequence[str]
) -> dict[str, np.ndarray]:
    """Values of an iteration's episodes by tag, [at most MOST] each.

    Tags: picked_rank/<feature> (rank of each pick among its round's candidates, -1 to 1),
    difficulty_distribution/picked (mean U of each batch), amcb_weight_distribution/<modality> (after each round).

    Args:
        picked: static features of each episode's picks, [T, b, F].
        infos: T + 1 of each episode, the first from the reset.
        features: names of the static features, in their order.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for rounds in infos:
        for info in rounds[1:]:
            values["difficulty_distribution/picked"].append(info["difficulty/picked"])
            for name, value in info.items():
                if name.startswith("amcb/"):
                    values[f"amcb_weight_distribution/{name.removeprefix('amcb/')}"].append(value)
    found = {tag: thinned(np.asarray(v)) for tag, v in values.items()}
    if not features:
        return found
    ranks = thinned(np.concatenate(picked).reshape(-1, len(features)).astype(np.float32))
    return found | {f"picked_rank/{name}": ranks[:, f] for f, name in enumerate(features)}


def thinned(values: np.ndarray) -> np.ndarray:
    """Evenly spaced ones of the first axis, MOST of them at most."""
    return values if len(values) <= MOST else values[np.linspace(0, len(values) - 1, MOST).astype(np.int64)]
