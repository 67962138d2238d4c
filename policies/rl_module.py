"""The selection network as an RLlib module (new API stack)."""

from __future__ import annotations

from typing import Any

from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from ray.rllib.utils.annotations import override

from policies.selector import Selector, SelectorConfig


class SelectorModule(TorchRLModule):
    """Draws batches itself: the draw replays features pick by pick, which no action distribution could.

    model_config: `selector` (SelectorConfig) and `batch_size` (b).
    """

    @override(TorchRLModule)
    def setup(self) -> None:
        config: SelectorConfig = self.model_config["selector"]
        self.selector = Selector(config)
        self.batch_size: int = self.model_config["batch_size"]

    @override(TorchRLModule)
    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._pick(batch, greedy=False)

    @override(TorchRLModule)
    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return self._pick(batch, greedy=True)

    def _pick(self, batch: dict[str, Any], greedy: bool) -> dict[str, Any]:
        picks, logp = self.selector.select(batch[Columns.OBS], self.batch_size, greedy)
        return {Columns.ACTIONS: picks, Columns.ACTION_LOGP: logp}

    @override(TorchRLModule)
    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        logp = self.selector.log_probability(batch[Columns.OBS], batch[Columns.ACTIONS].long())
        return {Columns.ACTION_LOGP: logp}
