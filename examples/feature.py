"""A candidate feature of your own: how many of the modalities, each alone, predict the class that all predict together.

python -m examples.feature
python run.py train --dataset emoji --out runs/mine --set policy.features=[margin,examples.feature:agreement]
"""

from __future__ import annotations

import tempfile

from torch import Tensor

from envs.candidates import Feature, View
from learners.algorithms.config import EvolutionConfig
from learners.settings import ResourceConfig, TrainConfig
from learners.training import train
from policies.policy_file import load_policy
from policies.selector import SelectorConfig

NAME = "examples.feature:agreement"


def share(view: View) -> Tensor:
    """The share [E, K] of K candidates' modalities; policies see its rank in the round, from -1 to 1."""
    own = view.outputs.modality_logits.argmax(2)  # [E, M, K]
    _, together = view.top
    agrees, present = own == together[:, None], view.outputs.present
    if present is None:
        return agrees.float().mean(1)
    return (agrees & present).sum(1) / present.sum(1)


agreement = Feature(
    "agreement",
    share,
    words=("its modalities point to one class", "its modalities point to several classes"),  # for people who label
)


def main() -> None:
    """Train a policy that looks at it beside two of ours, and read the policy back."""
    config = TrainConfig(
        datasets=("emoji",),
        algorithm="evolution",
        policy=SelectorConfig(features=("margin", "density", NAME), batch_features=("gradient_distance",)),
        evolution=EvolutionConfig(generations=4, population=8, starts=1),
        resources=ResourceConfig(num_env_runners=0),  # here; without this line in Ray's workers, which find it, too
    )
    with tempfile.TemporaryDirectory() as folder:
        policy, _ = load_policy(train(config, folder))
    for name, weight in policy.named_weights().items():
        print(f"{name:35s} {weight:+.2f}")


if __name__ == "__main__":
    main()
