"""REINFORCE as an RLlib algorithm (new API stack): sample whole episodes, one gradient step, sync."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
    WEIGHTS_SEQ_NO,
)
from torch import Tensor

from envs.errors import RLMBAError
from learners.advantages import ADVANTAGES
from learners.algorithms.checkpoint import LearnedState
from learners.algorithms.config import LearnerConfig, ProximalConfig
from learners.algorithms.drawn import drawn_values
from learners.algorithms.rl_module import PICKED, SelectorModule
from policies.selector import SelectorConfig

RESULTS = "rl_mba"  # key of our figures in an iteration's result
_NAMING = ("source", "pool", "start", "labels")  # infos that say which episode it is, and measure nothing


class Lighten(RLlibCallback):
    """A callback that takes out of episodes what their way to the learner need not carry.

    That is what the policy saw, once it has acted on it, where the learner needs none of it: an observation is tens of
    kilobytes, the gradient that was taken of it a few numbers. Numbers in infos become Python's, which are sent in a
    tenth of the time that NumPy's scalars take.
    """

    @override(RLlibCallback)
    def on_episode_step(self, *, episode: SingleAgentEpisode, rl_module: SelectorModule, **kwargs: Any) -> None:
        if rl_module.gradients:
            _drop(episode, -2)

    @override(RLlibCallback)
    def on_episode_end(self, *, episode: SingleAgentEpisode, rl_module: SelectorModule, **kwargs: Any) -> None:
        if rl_module.gradients:
            _drop(episode, -1)
        episode.infos.data = [{k: v.item() for k, v in info.items()} for info in episode.infos.data]
        episode._last_added_observation = episode._last_added_infos = None  # for episodes of several agents only


def _drop(episode: SingleAgentEpisode, at: int) -> None:
    seen = episode.observations.data
    seen[at] = {"state": seen[at]["state"]}  # RLlib wants some observation


class ReinforceConfig(AlgorithmConfig):
    """RLlib configuration of `Reinforce`."""

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or Reinforce)
        self.grad_clip_by = "global_norm"
        # Whole episodes come from rollout_fragment_length = T; "complete_episodes" would re-seed the environment
        # on every sample call.
        self.batch_mode = "truncate_episodes"
        # Connectors keep no state here; to merge it RLlib would wait for every runner after each iteration.
        self.merge_env_runner_states = False
        self.broadcast_env_runner_states = False
        # Actions are slot numbers, not something to be rescaled.
        self.normalize_actions = False
        self.clip_actions = False
        self.callbacks(Lighten)
        self.selection(SelectorConfig(), batch_size=1)
        self.learning(LearnerConfig(), ProximalConfig())

    def selection(self, selector: SelectorConfig, batch_size: int) -> Self:
        """Set the shape of the selection network, and b, picks per step."""
        self.selector, self.batch_size = selector, batch_size
        return self

    def learning(self, learner: LearnerConfig, proximal: ProximalConfig) -> Self:
        """Set how weights follow from episodes; REINFORCE has no use for `proximal`."""
        self.learner, self.proximal = learner, proximal
        return self.training(lr=learner.learning_rate, grad_clip=learner.gradient_clip)

    @override(AlgorithmConfig)
    def get_default_rl_module_spec(self) -> RLModuleSpec:
        gradients = self.algo_class.differentiates_draws(self.selector)
        return RLModuleSpec(
            module_class=SelectorModule,
            model_config={"selector": self.selector, "batch_size": self.batch_size, "gradients": gradients},
        )

    @override(AlgorithmConfig)
    def get_default_learner_class(self) -> type:
        return ReinforceLearner


class ReinforceLearner(TorchLearner):
    """Loss -mean(A log pi(batch)), the log-probability to first order or replayed pick by pick."""

    @override(TorchLearner)
    def compute_loss_for_module(
        self, *, module_id: str, config: ReinforceConfig, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        logp = fwd_out[Columns.ACTION_LOGP]
        return -(logp * batch[Columns.ADVANTAGES]).mean()


class Reinforce(Algorithm):
    """Policy gradient on whole episodes.

    Beside RLlib's own state it keeps that of the advantages and the averaged weights; both live on the driver, so
    they are one thing however many learners there are. Checkpoints are ours (`learned_state`): RLlib's are pickles.
    """

    needs_behaviour = False  # whether the loss compares with the policy that drew
    loss_figures: tuple[str, ...] = ()  # what the loss logs about itself

    @classmethod
    def differentiates_draws(cls, selector: SelectorConfig) -> bool:
        """Whether gradients are taken where batches are drawn, so that the learner needs no observations.

        They may be where there is one step on what the very weights drew that it starts from.
        """
        return selector.only_linear and not cls.needs_behaviour

    @override(Algorithm)
    def setup(self, config: AlgorithmConfig) -> None:
        super().setup(config)
        learner = self.config.learner
        self.advantages = ADVANTAGES[learner.advantage](learner.advantage_decay, learner.advantage_clip)
        self.averaged: dict[str, np.ndarray] = self._weights()
        self._updates = 0
        self._figures: dict[str, float] = {}
        self.labels: dict[int, int] = {}  # of the pools that were drawn from families, by number of the source
        self.drawn: dict[str, np.ndarray] = {}  # values of the last iteration for histograms, by tag

    @override(Algorithm)
    def step(self) -> dict[str, Any]:
        # Not through RLlib's metrics: they would report a data set's figures in iterations that played another.
        self._figures = {}
        return super().step() | {RESULTS: self._figures}

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> ReinforceConfig:
        return ReinforceConfig()

    @override(Algorithm)
    def training_step(self) -> None:
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            episodes, runner_results = self._sample()
        if not episodes:  # every runner has failed; RLlib is bringing them back
            return
        self.metrics.aggregate(runner_results, key=ENV_RUNNER_RESULTS)
        self._add_advantages(episodes)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0)
            results = self.learner_group.update(
                episodes=episodes,
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: steps},
                **self._passes(sum(map(len, episodes))),
            )
            self.check_learners()
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        for name in self.loss_figures:
            value = self.metrics.peek((LEARNER_RESULTS, DEFAULT_MODULE_ID, name), default=None)
            if value is not None:
                self._figures[f"learner/{name}"] = float(value)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)
        self._average_weights()

    def _sample(self) -> tuple[list[SingleAgentEpisode], list[dict[str, Any]]]:
        """Whole episodes for one iteration, and the environment runners' figures; none where none is alive."""
        began = time.monotonic()
        sampled = synchronous_parallel_sample(
            worker_set=self.env_runner_group,
            max_env_steps=self.config.total_train_batch_size,
            sample_timeout_s=self.config.sample_timeout_s,
            _uses_new_env_runners=True,
            _return_metrics=True,
        )
        if time.monotonic() - began >= self.config.sample_timeout_s:
            self._end_runners(self._hanging_runners())
        return sampled

    def _hanging_runners(self) -> set[int]:
        """Numbers of the environment runners that have been given nothing to do and do not answer."""
        group = self.env_runner_group
        healthy = group.healthy_env_runner_ids()
        answers = group.foreach_env_runner(
            lambda runner: runner.worker_index,
            local_env_runner=False,
            remote_worker_ids=healthy,
            timeout_seconds=self.config.env_runner_health_probe_timeout_s,
        )
        return set(healthy) - set(answers)

    def _end_runners(self, numbers: Iterable[int]) -> None:
        """Kill environment runners that hang: RLlib replaces those that die, and waits for the others."""
        for number in numbers:
            ray.kill(self.env_runner_group._worker_manager.actors()[number], no_restart=False)

    def check_learners(self) -> None:
        """Raise RLMBAError where a remote learner has died or failed.

        RLlib would go on without its part, and write checkpoints that lack it.
        """
        group = self.learner_group
        if group.is_remote and group._worker_manager.num_healthy_actors() < self.config.num_learners:
            raise RLMBAError(
                "A process that learns ended early. The last checkpoint is whole: --resume goes on from there."
            )

    def _passes(self, rows: int) -> dict[str, Any]:
        """How learners go over an iteration's rows: once, all of them at a time."""
        return {}

    def _add_advantages(self, episodes: list[SingleAgentEpisode]) -> None:
        """Write advantages into the episodes; keep this iteration's figures."""
        rewards = np.stack([np.asarray(e.get_rewards()) for e in episodes])
        infos = [e.get_infos() for e in episodes]  # T + 1 each, the first from the reset
        source, pool, start, labels = (np.array([i[0][name] for i in infos], np.int64) for name in _NAMING)
        group = np.unique(np.stack([source, pool, start], 1), axis=0, return_inverse=True)[1].reshape(-1)
        for number, drawn, count in np.unique(np.stack([source, pool, labels], 1), axis=0).tolist():
            if drawn:  # another pool of a family
                self.labels[number] = self.labels.get(number, 0) + count
        advantages = self.advantages(rewards, group, source)
        for episode, row in zip(episodes, advantages.astype(np.float32), strict=True):
            if not self.needs_behaviour:  # the log-probabilities of the draw need not travel
                episode.extra_model_outputs.pop(Columns.ACTION_LOGP, None)
            episode.extra_model_outputs[Columns.ADVANTAGES] = InfiniteLookbackBuffer(data=row)
        self._figures = self._summarise(infos, rewards)
        picked = [np.asarray(e.extra_model_outputs.pop(PICKED).get()) for e in episodes]
        self.drawn = drawn_values(picked, infos, self.config.selector.features)

    @staticmethod
    def _summarise(infos: list[list[dict]], rewards: np.ndarray) -> dict[str, float]:
        """Means over the rounds of all episodes, by the names of the environment's infos.

        AULC and its differences to the paired baselines, of the episodes that have some, also by source.
        """
        sums: dict[str, list[float]] = defaultdict(list)
        for rounds in infos:
            for info in rounds[1:]:
                areas = {"aulc": info["accuracy"]}
                for name, value in info.items():
                    if name not in _NAMING:
                        sums[name].append(float(value))
                    if name.startswith("baseline/"):
                        areas[f"aulc_minus/{name.removeprefix('baseline/')}"] = info["accuracy"] - value
                for name, value in areas.items():
                    sums[name].append(float(value))
                    sums[f"source/{info['source']}/{name}"].append(float(value))
        figures = {name: float(np.mean(values)) for name, values in sums.items()}
        return figures | {"return": float(rewards.sum(1).mean()), "episodes": float(len(infos))}

    def _weights(self) -> dict[str, np.ndarray]:
        state = self.learner_group.get_weights()
        module = next(iter(state.values()))
        return {k.removeprefix("selector."): np.asarray(v, np.float32).copy() for k, v in module.items()}

    def _average_weights(self) -> None:
        self._updates += 1
        # Early on the plain mean is better than an average that remembers the start.
        decay = min(self.config.learner.weight_average, 1.0 - 1.0 / (self._updates + 1))
        for name, value in self._weights().items():
            self.averaged[name] = decay * self.averaged[name] + (1.0 - decay) * value

    def averaged_state(self) -> dict[str, torch.Tensor]:
        """State dict of a `Selector` with the averaged weights."""
        return {name: torch.from_numpy(value.copy()) for name, value in self.averaged.items()}

    def learned_state(self) -> LearnedState:
        """All that learning goes on from: weights, moments of the optimiser, the averaged weights, and what we count.

        Raises:
            RLMBAError: where a learner has ended, whose part would be missing.
        """
        self.check_learners()
        try:
            learner = self.learner_group.get_state(components="learner")["learner"]
        except Exception:
            self.check_learners()
            raise
        (optimiser,) = learner["optimizer"].values()
        return LearnedState(
            weights=learner["rl_module"][DEFAULT_MODULE_ID],
            averaged=self.averaged,
            moments=optimiser["state"]["state"],
            steps=learner[WEIGHTS_SEQ_NO],
            updates=self._updates,
            advantages=self.advantages.get_state(),
            labels=self.labels,
        )

    def set_learned_state(self, state: LearnedState) -> None:
        """Go on from `learned_state` of an algorithm of the same settings."""
        learner = self.learner_group.get_state(components="learner")["learner"]
        now = learner["rl_module"][DEFAULT_MODULE_ID]
        if {n: v.shape for n, v in now.items()} != {n: v.shape for n, v in state.weights.items()}:
            raise ValueError("its weights have other names or shapes than the policy of these settings")
        (optimiser,) = learner["optimizer"].values()
        optimiser["state"]["state"] = state.moments
        learner |= {"rl_module": {DEFAULT_MODULE_ID: state.weights}, WEIGHTS_SEQ_NO: state.steps}
        self.learner_group.set_state({"learner": learner})
        self.env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)
        self._set_own_state(state.advantages, state.averaged, state.updates, state.labels)

    def _set_own_state(
        self, advantages: dict[str, Any], averaged: dict[str, np.ndarray], updates: int, labels: dict[int, int]
    ) -> None:
        self.advantages.set_state(advantages)
        self.averaged, self._updates, self.labels = averaged, updates, labels

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of an earlier version, which was RLlib's with our state added."""
        super().set_state(state)
        if RESULTS in state:
            self._set_own_state(**state[RESULTS])
