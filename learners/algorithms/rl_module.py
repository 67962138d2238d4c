"""The selection network as an RLlib module (new API stack)."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.annotations import override
from torch import Tensor

from policies.selector import SelectorConfig
from policies.start import initial_selector

GRADIENT = "action_logp_gradient"  # column: of each batch's log-probability in the linear weights
PICKED = "picked_features"  # column: static features of each pick


class SelectorModule(TorchRLModule):
    """A `Selector` that draws batches itself: features change pick by pick, which no action distribution could follow.

    model_config: `selector` (SelectorConfig), `batch_size` (b) and `gradients`: whether the gradient of a batch's
    log-probability is taken when it is drawn, and the learner needs no observations.
    """

    @override(TorchRLModule)
    def setup(self) -> None:
        config: SelectorConfig = self.model_config["selector"]
        self.selector = initial_selector(config)
        self.batch_size: int = self.model_config["batch_size"]
        self.gradients: bool = self.model_config["gradients"]

    @override(TorchRLModule)
    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        observation = batch[Columns.OBS]
        if not self.gradients:
            return self._columns(observation, *self.selector.sample(observation, self.batch_size))
        picks, logp, gradient = self.selector.sample_with_gradient(observation, self.batch_size)
        return self._columns(observation, picks, logp) | {GRADIENT: gradient}

    @override(TorchRLModule)
    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        observation = batch[Columns.OBS]
        picks = self.selector.select(observation, self.batch_size)
        return self._columns(observation, picks, self.selector.log_probability(observation, picks))

    @staticmethod
    def _columns(observation: dict[str, Tensor], picks: Tensor, logp: Tensor) -> dict[str, Any]:
        picked = torch.take_along_dim(observation["features"], picks[..., None], 1)
        return {Columns.ACTIONS: picks, Columns.ACTION_LOGP: logp, PICKED: picked}

    @override(TorchRLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        if self.gradients:
            return {Columns.ACTION_LOGP: self.selector.first_order(batch[GRADIENT])}
        logp = self.selector.log_probability(batch[Columns.OBS], batch[Columns.ACTIONS].long())
        return {Columns.ACTION_LOGP: logp}
