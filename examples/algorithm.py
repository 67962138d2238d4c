"""An algorithm of your own: (1+1) search. Change the policy a little; keep the change where it earned more.

python -m examples.algorithm
python run.py train --dataset emoji --out runs/mine --algorithm examples.algorithm:OnePlusOne --minutes 2
"""

from __future__ import annotations

import tempfile

import numpy as np
import torch

from envs.candidates import CandidateConfig
from envs.randomness import stream
from envs.simulation import ProtocolConfig
from envs.source import Source
from learners.algorithms.base import Say, Trainer, silent
from learners.algorithms.config import LearnerConfig
from learners.algorithms.population import Arena, play_population
from learners.settings import ResourceConfig, TrainConfig
from learners.training import train
from policies.policy_file import PolicyCard

STEP = 0.3  # standard deviation of a change
STARTS = 4  # episodes in which a change is tried


class OnePlusOne(Trainer):
    """Searches the weights of a linear policy, all in this process; iterations, checkpoints and resuming are ours."""

    def __init__(self, config: TrainConfig, card: PolicyCard, done: int = 0, say: Say = silent):
        super().__init__(config, card, done, say)
        self._sources = [Source(name, config.model, config.protocol, config.seed) for name in config.datasets]
        self._arena = Arena(config.protocol, config.candidates, config.reward, config.policy)

    @classmethod
    def together(cls, config: TrainConfig) -> tuple[int, int]:
        """Starts played side by side, and episodes of each."""
        return STARTS, 2

    def step(self) -> tuple[dict[str, float], dict[str, float]]:
        """Play both policies from the same starts, and keep the better one."""
        self.done += 1
        rng = stream(self.config.seed, "one plus one", self.done)
        source = self._sources[self.done % len(self._sources)]
        starts = [source.start(int(number)) for number in rng.choice(self.config.starts, STARTS)]
        kept = self.policy.weights.detach().numpy().copy()
        both = np.stack([kept, kept + rng.normal(0.0, STEP, kept.shape).astype(np.float32)])
        played = play_population(source.simulation.trainer, starts, self._arena, both)  # [STARTS, 2] each
        better = int(played["return"].mean(0).argmax())
        with torch.no_grad():
            self.policy.weights.copy_(torch.from_numpy(both[better]))
        accuracy = played["accuracy"].mean(0)
        figures = {"aulc": float(accuracy[better]), "aulc_minus/before": float(accuracy[better] - accuracy[0])}
        return figures | {"episodes": float(2 * STARTS)}, {}


def main() -> None:
    """Train for some iterations."""
    config = TrainConfig(
        datasets=("synthetic:samples=800,classes=4,modalities=2,dim=6",),
        algorithm="examples.algorithm:OnePlusOne",
        protocol=ProtocolConfig(rounds=5),
        candidates=CandidateConfig(per_pick=20),
        learner=LearnerConfig(iterations=6),
        resources=ResourceConfig(num_env_runners=0),
    )
    with tempfile.TemporaryDirectory() as folder:
        train(config, folder)


if __name__ == "__main__":
    main()
