"""Policy gradients at work on a run: REINFORCE, PPO and APPO, whose episodes and updates RLlib organises."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ray.tune.registry import register_env
from ray.tune.trainable import trainable

from envs.errors import ConfigError, PolicyError, TrustError
from envs.multimodal_al import VectorMultimodalALEnv
from envs.names import unique_names
from envs.reading import reading
from learners.algorithms.base import UNREADABLE, Say, Trainer, silent
from learners.algorithms.checkpoint import is_pickled, read_state, write_state
from learners.algorithms.ppo import APPO, PPO
from learners.algorithms.reinforce import RESULTS, Reinforce
from learners.baseline_curves import baseline_curves
from learners.placement import RLLIB, sent_bytes
from policies.policy_file import PolicyCard
from policies.selector import Selector
from runtime.cluster import held_back_errors

if TYPE_CHECKING:
    from learners.settings import TrainConfig

ENV_NAME = "rl_mba_multimodal_al"

# How often a process that plays holds an episode's observation of a round: while the policy computes with it, and from
# then on where the learner is to look at it. From 100 to 1,600 candidates the peak in docs/scaling.md, "How it grows",
# rises by 341 MB at 48 episodes: by 81 MB of outputs, and 16 times the observations.
COPIES_WHILE_CHOOSING, COPIES_KEPT = 12, 3

# How often an iteration's episodes, as they are on their way, are held where they are learned from, or passed on.
# Fitted to the peaks with 84 MB of observations in docs/scaling.md, "Memory".
COPIES_IN_LEARNING_DRIVER = 5
COPIES_IN_SENDING_DRIVER, COPIES_IN_REMOTE_LEARNERS = 3, 4.5


class RunnerEnv(VectorMultimodalALEnv):
    """The environment as our learners have it: observations as they are held and sent; what is drawn is a batch."""

    strict = True
    half = True


class GradientTrainer(Trainer):
    """Policy gradients on RLlib."""

    played = "drawn (exploring) policy on reward rows"
    needs_baselines = True
    needs_ray = True
    process_bytes = RLLIB
    rllib: ClassVar[type[Reinforce]]  # the RLlib algorithm

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        for name in ("vary_protocol", "oversample"):
            if getattr(config.evolution, name):
                raise ConfigError(
                    f"evolution.{name} takes --algorithm evolution; {config.algorithm} plays one protocol on its data "
                    "sets as they are."
                )
        runners = max(config.resources.num_env_runners, 1)
        if config.learner.groups % runners:
            raise ConfigError(
                f"learner.groups is {config.learner.groups}, which {runners} environment runners cannot share evenly; "
                f"choose a multiple of {runners}."
            )

    @classmethod
    def sends_observations(cls, config: TrainConfig) -> bool:
        return not cls.rllib.differentiates_draws(config.policy)

    @classmethod
    def observations_held(cls, config: TrainConfig) -> int:
        rounds = config.protocol.rounds + 1 if cls.sends_observations(config) else 1
        return COPIES_WHILE_CHOOSING + COPIES_KEPT * rounds

    @classmethod
    def learning_bytes(cls, config: TrainConfig) -> tuple[float, float]:
        learners = config.resources.num_learners
        seen = config.learner.groups * config.learner.copies * config.protocol.rounds * sent_bytes(config)
        if not learners:
            return COPIES_IN_LEARNING_DRIVER * seen, 0.0
        return COPIES_IN_SENDING_DRIVER * seen, COPIES_IN_REMOTE_LEARNERS * seen / learners

    def __init__(self, config: TrainConfig, card: PolicyCard, done: int = 0, say: Say = silent):
        super().__init__(config, card, done, say)
        self._sources = unique_names([source["name"] for source in card.trained_on])
        self.algorithm = make_algorithm(config, _curves(config, say), done)

    def step(self) -> tuple[dict[str, float], dict[str, float]] | None:
        result = self.algorithm.train()
        if not result[RESULTS]:
            return None  # no environment runner is alive at the moment
        self._count_labels()
        timers = result["timers"]
        seconds = {"sample": timers["env_runner_sampling_timer"], "learn": timers["learner_update_timer"]}
        self.histograms = self.algorithm.drawn
        return _figures(result, self._sources), seconds

    def _count_labels(self) -> None:
        """Put onto the card what the pools hold that were drawn from families so far."""
        for number, labels in self.algorithm.labels.items():
            self.card.trained_on[number]["labels"] = labels
        self.card.labels_used = sum(source["labels"] for source in self.card.trained_on)

    def selector(self) -> Selector:
        selector = Selector(self.config.policy)
        selector.load_state_dict(self.algorithm.averaged_state())
        return selector

    def save(self, folder: str) -> None:
        write_state(self.algorithm.learned_state(), Path(folder))

    def restore(self, checkpoint: Path) -> None:
        pickled = is_pickled(checkpoint)
        if pickled and not self.trusts_checkpoints:
            raise TrustError(
                f"The checkpoint {checkpoint} was written by an earlier version in a form (pickle) that can run any "
                "code of whoever wrote it. If that was you or somebody you trust, go on with: python run.py train "
                f"--out {checkpoint.parent.parent} --resume --trust-checkpoint"
            )
        with reading(checkpoint, UNREADABLE, PolicyError):
            if pickled:
                self.algorithm.restore_from_path(str(checkpoint.absolute()))
            else:
                self.algorithm.set_learned_state(read_state(checkpoint))

    def stop(self) -> None:
        self.algorithm.stop()


class ReinforceTrainer(GradientTrainer):
    """One step on each iteration's episodes."""

    rllib = Reinforce


class PPOTrainer(GradientTrainer):
    """Several clipped steps on each iteration's episodes."""

    rllib = PPO


class APPOTrainer(GradientTrainer):
    """PPO whose environment runners play on while it learns."""

    rllib = APPO

    @classmethod
    def check(cls, config: TrainConfig) -> None:
        super().check(config)
        if not config.resources.num_env_runners:
            raise ConfigError(
                "appo needs processes that play while another one learns, and resources.num_env_runners is 0; set "
                "--num-env-runners to 1 or more, or use --algorithm ppo."
            )


def make_algorithm(config: TrainConfig, curves: dict[str, np.ndarray], offset: int = 0) -> Reinforce:
    """The RLlib algorithm of a run.

    Args:
        curves: strategy -> accuracy of the paired baselines [sources, starts, T + 1].
        offset: iterations already done: a resumed run must not draw the same episodes again.
    """
    env, trainer, resources = config.env(), config.trainer, config.resources
    assert issubclass(trainer, GradientTrainer)
    register_env(ENV_NAME, lambda context: RunnerEnv(env, context["num_envs"], curves))
    starts, copies = trainer.together(config)
    steps = config.learner.groups * config.learner.copies * config.protocol.rounds
    algorithm = (
        trainer.rllib.get_default_config()
        .environment(ENV_NAME)
        .env_runners(
            num_env_runners=resources.num_env_runners,
            num_envs_per_env_runner=starts * copies,
            num_gpus_per_env_runner=resources.num_gpus_per_env_runner,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=config.protocol.rounds,
            sample_timeout_s=resources.patience_s,
        )
        .learners(num_learners=resources.num_learners, num_gpus_per_learner=resources.num_gpus_per_learner)
        .selection(config.policy, config.protocol.batch_size)
        .learning(config.learner, config.proximal)
        .training(train_batch_size_per_learner=steps // max(resources.num_learners, 1))
        .fault_tolerance(delay_between_env_runner_restarts_s=1, env_runner_health_probe_timeout_s=5)
        .debugging(seed=config.seed + 100_003 * offset, log_level="ERROR")
    )
    _find_place_for_results()
    with held_back_errors():
        return algorithm.build_algo()


def _find_place_for_results() -> None:
    """RLlib makes an empty folder for each algorithm, in the home folder; elsewhere, where that cannot be written."""
    try:
        os.makedirs(trainable.DEFAULT_STORAGE_PATH, exist_ok=True)
        with tempfile.TemporaryFile(dir=trainable.DEFAULT_STORAGE_PATH):
            pass
    except OSError:
        trainable.DEFAULT_STORAGE_PATH = tempfile.gettempdir()


def _curves(config: TrainConfig, say: Say) -> dict[str, np.ndarray]:
    """The paired baselines' curves, from the cache or played now."""
    names = ", ".join(config.reward.baselines)

    def tell(done: int, total: int) -> None:
        say(f"baseline curves ({names}): {done} of {total} parts", last=done == total)

    return baseline_curves(config.env(), config.reward.baselines, tell)


def _figures(result: dict[str, Any], sources: Sequence[str]) -> dict[str, float]:
    """This iteration's figures, flat; of sources by name, of those that it played."""
    figures = {}
    for name, value in result[RESULTS].items():
        if name.startswith("source/"):
            _, number, kind = name.split("/", 2)
            name = f"source_{kind}/{sources[int(number)]}"
        figures[name] = float(value)
    return figures
