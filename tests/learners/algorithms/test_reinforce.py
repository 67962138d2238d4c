"""REINFORCE on RLlib: what episodes carry to the learner, and that its step is the one of the whole observations."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from learners.algorithms.gradient import make_algorithm
from learners.algorithms.rl_module import GRADIENT, PICKED, SelectorModule
from learners.placement import round_bytes, sent_bytes
from learners.settings import TrainConfig, build, parse_overrides
from policies.selector import SelectorConfig
from tests.support.observations import FEW, random_observation
from tests.support.training import DATASET, SMALL


def config(*changes: str, **top) -> TrainConfig:
    small = [setting for setting in SMALL if not setting.startswith("candidates.per_pick=")]
    settings = parse_overrides([*small, "candidates.per_pick=40", "resources.num_env_runners=0", *changes])
    return build(TrainConfig, {"datasets": [DATASET]} | settings | top)


def module(gradients: bool) -> SelectorModule:
    model = {"selector": SelectorConfig(features=FEW), "batch_size": 4, "gradients": gradients}
    return SelectorModule(model_config=model)


def test_the_step_from_gradients_is_the_one_from_observations() -> None:
    observation, advantages = random_observation(0, rows=40), torch.linspace(-1, 2, 40)
    eager, plain = module(True), module(False)
    torch.manual_seed(0)
    drawn = eager.forward_exploration({Columns.OBS: observation})
    torch.manual_seed(0)
    assert torch.equal(plain.forward_exploration({Columns.OBS: observation})[Columns.ACTIONS], drawn[Columns.ACTIONS])
    found = []
    for one, batch in ((eager, {GRADIENT: drawn[GRADIENT]}), (plain, {Columns.OBS: observation} | drawn)):
        logp = one.forward_train(batch)[Columns.ACTION_LOGP]
        (gradient,) = torch.autograd.grad((logp * advantages).mean(), one.selector.weights)
        found.append(gradient)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)
    assert found[0].abs().max() > 0.01


@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize(
    "changes, top",
    [([], {}), (["policy.mlp=[4]"], {}), ([], {"algorithm": "ppo"})],
    ids=["linear", "mlp", "ppo"],
)
def test_observations_travel_where_the_learner_looks_at_them(changes: list[str], top: dict) -> None:
    made = config(*changes, **top)
    algorithm = make_algorithm(made, {})
    try:
        episodes = algorithm.env_runner.sample()
    finally:
        algorithm.stop()
    assert len(episodes) == 8 and all(len(episode) == 3 for episode in episodes)
    whole = made.trainer.sends_observations(made)
    assert whole == bool(changes or top)
    for episode in episodes:
        assert ("features" in episode.get_observations()) == whole
        assert (GRADIENT in episode.extra_model_outputs) == (not whole)
        picked = episode.get_extra_model_outputs(PICKED)
        assert picked.shape == (3, 3, len(made.policy.features))
        if whole:
            seen = np.asarray(episode.get_observations(slice(0, 3))["features"])
            slots = np.asarray(episode.get_actions())
            np.testing.assert_array_equal(picked, np.take_along_axis(seen, slots[..., None], 1))
    sent = len(pickle.dumps(episodes)) / 24
    # What is said beforehand is what a round takes, up to what episodes carry but once.
    assert sent_bytes(made) < sent < sent_bytes(made) + round_bytes(made) / 2
    assert whole or sent < round_bytes(made) / 8
