"""Proximal policy optimisation (Schulman et al. 2017) on the ordered draw, as RLlib algorithms (new API stack).

Episodes, advantages and exported weights are those of `learners.algorithms.reinforce`; there is no critic, because the
mean of a group's copies is the baseline. The probability of a batch is a product over its b picks, and so would be the
ratio of new to old: the larger b, the more of the batches one small step moves out of the clip range. It is therefore
scaled per pick, ratio = exp((log pi - log pi_old) / b), the geometric mean over the picks (Zheng et al. 2025 do the
same for sequences of tokens).
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from torch import Tensor

from learners.algorithms.reinforce import Reinforce, ReinforceConfig, ReinforceLearner

POLL_SECONDS = 0.2


def proximal_loss(
    logp: Tensor, behaviour: Tensor, advantages: Tensor, picks: int, clip: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate of rows of `picks` picks each, and what became of the ratios.

    Its gradient at ratio 1 is that of REINFORCE, -mean(A grad log pi), whatever the number of picks.

    Args:
        logp, behaviour: log-probability [n] of each batch now, and when it was drawn.
        advantages: [n].
        clip: how far a ratio may move from 1.
    """
    log_ratio = (logp - behaviour) / picks
    ratio = log_ratio.exp()
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    figures = {
        "clipped_share": ((ratio - 1).abs() > clip).float().mean(),
        # Plain means: of a ratio per pick, (r - 1) - log r would estimate not KL / b but about KL / b^2.
        "divergence_per_pick": -log_ratio.mean(),  # of KL(behaviour || policy) / b; noise may turn it below 0
        "entropy_per_pick": -behaviour.mean() / picks,  # of the behaviour's entropy / b, in nats
    }
    return -picks * surrogate.mean(), {k: v.detach() for k, v in figures.items()}


class PPOConfig(ReinforceConfig):
    """RLlib configuration of `PPO` and `APPO`."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or PPO)

    @override(AlgorithmConfig)
    def get_default_learner_class(self) -> type:
        return PPOLearner


class PPOLearner(ReinforceLearner):
    """The clipped surrogate in place of REINFORCE's loss."""

    @override(TorchLearner)
    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().before_gradient_based_update(timesteps=timesteps)
        self._seen: dict[str, list[float]] = defaultdict(list)

    @override(TorchLearner)
    def compute_loss_for_module(
        self, *, module_id: str, config: PPOConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        loss, figures = proximal_loss(
            fwd_out[Columns.ACTION_LOGP],
            batch[Columns.ACTION_LOGP],
            batch[Columns.ADVANTAGES],
            config.batch_size,
            config.proximal.clip,
        )
        for name, value in figures.items():
            self._seen[name].append(value.item())
        return loss

    @override(TorchLearner)
    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        super().after_gradient_based_update(timesteps=timesteps)
        # Not step by step: RLlib's mean is a moving average that remembers earlier iterations.
        for name, values in self._seen.items():
            self.metrics.log_value((DEFAULT_MODULE_ID, name), float(np.mean(values)), window=1)


class PPO(Reinforce):
    """Policy gradient in several passes over each iteration's episodes."""

    needs_behaviour = True
    epochs = 4  # passes over an iteration's rows, unless the settings say another number
    loss_figures = ("clipped_share", "divergence_per_pick", "entropy_per_pick")  # means over an iteration's steps

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> PPOConfig:
        return PPOConfig(cls)

    @override(Reinforce)
    def _passes(self, rows: int) -> dict[str, Any]:
        """Epochs of equal minibatches, shuffled after the first.

        RLlib repeats rows to fill a minibatch: one larger than what a learner has would pass for several epochs.
        """
        rows = math.ceil(rows / max(self.config.num_learners, 1))
        proximal = self.config.proximal
        size = math.ceil(rows / math.ceil(rows / proximal.minibatch_rows))
        return {"num_epochs": proximal.epochs or self.epochs, "minibatch_size": size, "shuffle_batch_per_epoch": True}


class APPO(PPO):
    """PPO whose environment runners never wait: they go on with the weights that they have while a learner learns.

    RLlib's own APPO brings a critic, a target network and V-trace over one-step rewards, none of which this problem
    has a use for; the asynchronous sampling underneath is RLlib's. What a runner returns was drawn by weights that are
    an update or two old (the figure `learner/updates_behind`), and the clipped ratio accounts for that, as long as
    few further steps are taken on the same rows. Groups stay whole, because a runner plays whole groups.
    """

    epochs = 1  # rows are an update old, and more passes carry the policy far away from them

    @override(Reinforce)
    def setup(self, config: AlgorithmConfig) -> None:
        super().setup(config)
        self._heard: dict[int, float] = {}  # when each environment runner was last heard of, by its number

    @override(Reinforce)
    def _add_advantages(self, episodes: list[SingleAgentEpisode]) -> None:
        super()._add_advantages(episodes)
        drawn = [np.asarray(e.get_extra_model_outputs(WEIGHTS_SEQ_NO)) for e in episodes]
        self._figures["learner/updates_behind"] = self._updates - float(np.mean(drawn))

    @override(Reinforce)
    def _sample(self) -> tuple[list[SingleAgentEpisode], list[dict[str, Any]]]:
        episodes: list[SingleAgentEpisode] = []
        figures: list[dict[str, Any]] = []
        group = self.env_runner_group
        while sum(map(len, episodes)) < self.config.total_train_batch_size:
            answers = group.foreach_env_runner_async_fetch_ready(
                func=_sample_once, tag="sample", timeout_seconds=POLL_SECONDS, return_actor_ids=True
            )
            now = time.monotonic()
            for runner, (played, measured) in answers:
                episodes += played
                figures.append(measured)
                self._heard[runner] = now
            # One that has just been started again begins anew.
            self._heard = {runner: self._heard.get(runner, now) for runner in group.healthy_env_runner_ids()}
            if not self._heard:
                break
            silent = [r for r, heard in self._heard.items() if now - heard > self.config.sample_timeout_s]
            self._end_runners(silent)
            self._heard |= dict.fromkeys(silent, now)
        return episodes, figures


def _sample_once(runner: Any) -> tuple[list[SingleAgentEpisode], dict[str, Any]]:
    """Whole episodes of one simulation; runs on an environment runner."""
    return runner.sample(), runner.get_metrics()
