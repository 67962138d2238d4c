"""A batch feature of your own, which changes with every pick: how near the last pick is.

python -m examples.batch_feature
python run.py train --dataset emoji --out runs/mine --set policy.batch_features=[examples.batch_feature:LastPick]
"""

from __future__ import annotations

import torch
from torch import Tensor

from envs.candidates import offer
from envs.models.frozen.trainer import FrozenConfig
from envs.multimodal_al import EnvConfig
from envs.source import Source
from policies.batch_features import BatchFeature
from policies.selector import Selector, SelectorConfig

NAME = "examples.batch_feature:LastPick"


class LastPick(BatchFeature):
    """Distance in hidden features to the pick before, in mean distances; 0 before the first."""

    name = "last_pick"
    words = ("unlike the sample before it in the batch", "like the sample before it in the batch")
    reads = ()  # of the entries of an observation that are computed on demand

    def start(self) -> None:
        self._distance = torch.zeros_like(self.view.labelled)  # [B, K]

    def add(self, pick: Tensor) -> None:
        distance = self.view.hidden.squared_distance(pick)[:, 0].sqrt()
        self._distance = distance / self.view.mean(distance).clamp_min(1e-12)

    def current(self) -> Tensor:
        return self._distance


def main() -> None:
    """Let policies that differ by its weight pick a batch of emoji, and say how far neighbours in it lie apart."""
    config = EnvConfig()
    source = Source("emoji", FrozenConfig(), config.protocol)
    round_ = source.simulation.reset([source.start(0)])
    observation = offer(round_, 10, config.candidates, ("margin",)).observation()
    for weight in (-5.0, 0.0, 5.0):
        policy = Selector(SelectorConfig(features=("margin",), batch_features=(NAME,)))
        with torch.no_grad():
            policy.weights[:, 0] = torch.tensor([1.0, weight])
        slots = policy.select(observation, 10)
        hidden = observation["hidden"][0, slots[0]].float()
        apart = (hidden[1:] - hidden[:-1]).norm(dim=1).mean()
        print(f"weight {weight:+.0f}: picks {slots[0].tolist()}, each {apart:.2f} from the one before")
        logp = policy.log_probability(observation, slots)  # what a learner needs: it replays the picks
        assert torch.isfinite(logp).all()


if __name__ == "__main__":
    main()
