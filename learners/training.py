"""Training a selection policy: from settings to a run folder with a policy in it."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from ray.tune.registry import register_env

from envs.errors import ConfigError, PolicyError
from envs.multimodal_al import VectorMultimodalALEnv, open_source
from envs.names import unique_names
from envs.pools.partition import partition
from envs.pools.pool import Pool
from envs.sources import absolute_name, is_family
from learners.algorithms.evolution import EvolutionTrainer
from learners.algorithms.ppo import APPO, PPO, PPOConfig
from learners.algorithms.reinforce import RESULTS, Reinforce, ReinforceConfig
from learners.baseline_curves import baseline_curves
from learners.placement import describe, size_of
from learners.run_folder import RunFolder
from learners.settings import EPOCHS, TrainConfig, build, read_yaml, to_yaml
from learners.storage import RunCopy
from learners.telemetry.board import Board, Progress
from learners.telemetry.curves import save_picture, training_curve
from learners.telemetry.exported import write_exported
from policies.selector import PolicyCard, Selector, save_policy
from policies.strategies import get_strategy
from runtime.cluster import check_gpus, faults_in_words, held_back_errors, local_ray
from runtime.signals import stop_requested

ENV_NAME = "rl_mba_multimodal_al"
PACKAGES = ("ray", "torch", "gymnasium", "numpy", "cma")


def train(config: TrainConfig, out: str | Path, resume: bool = False, storage: str | None = None) -> Path:
    """Train a policy; returns its folder.

    Args:
        config: the settings; with `resume` those of the folder are used and only `minutes` is taken from here.
        out: run folder.
        resume: go on from the last checkpoint of an interrupted run.
        storage: folder or URL that receives a copy of the run folder after each iteration; a run is resumed from it
            where it has come further there than in `out`.

    Raises:
        RLMBAError: on bad settings or data, before any work starts; at the end, where the copy is not complete.
    """
    run = RunFolder(out)
    copy = RunCopy(storage, run) if storage else None
    if copy is not None and resume:
        copy.fetch()
    elif copy is not None:
        copy.refuse_other_run()
    if resume:
        if not run.is_run():
            raise ConfigError(f"{out} holds no run to resume; start one without --resume.")
        config = dataclasses.replace(build(TrainConfig, read_yaml(run.config)), minutes=config.minutes)
    elif not run.is_vacant():
        raise ConfigError(f"{out} is not empty; choose another --out, or --resume the run that is there.")
    evolution = config.algorithm == "evolution"
    if not evolution:  # it has no use for baselines
        for name in config.reward.baselines:
            get_strategy(name)
    check_gpus(config.resources.gpus)
    pools = opened(config)
    card = policy_card(config, pools)
    config = dataclasses.replace(config, datasets=tuple(absolute_name(name) for name in config.datasets))
    torch.set_num_threads(1)  # the driver shares the cores with its runners
    run.lock()
    try:
        print(*describe(config, [size_of(pool, config) for pool in pools]), sep="\n", flush=True)
        if not resume:
            run.write_text(run.config, to_yaml(config))
        alone = evolution and not config.resources.num_env_runners
        cluster = nullcontext() if alone else local_ray(config.resources.processes)
        with cluster, stop_requested() as stopping, faults_in_words(run.root):
            return _train(config, run, card, stopping, copy)
    finally:
        run.release()


def opened(config: TrainConfig) -> list[Pool]:
    """The data sets that a run trains on, checked; of a family one that is drawn from it."""
    return [open_source(name, config.protocol, np.random.default_rng(config.seed)) for name in config.datasets]


def policy_card(config: TrainConfig, pools: Sequence[Pool]) -> PolicyCard:
    """What a policy trained on these data sets has seen."""
    sources = []
    for name, pool in zip(config.datasets, pools, strict=True):
        if is_family(name):
            sources.append({"name": name, "fingerprint": "", "labels": 0})  # grows with the pools that are drawn
            continue
        labels = len(partition(pool).policy)
        sources.append({"name": pool.name, "fingerprint": pool.fingerprint, "labels": labels})
    return PolicyCard(
        candidates=config.candidates,
        trained_on=sources,
        labels_used=sum(s["labels"] for s in sources),
        seed=config.seed,
        preset=config.preset,
        versions={p: version(p) for p in PACKAGES},
        algorithm=config.algorithm,
    )


def make_algorithm(config: TrainConfig, curves: dict[str, np.ndarray], offset: int = 0) -> Reinforce:
    """The RLlib algorithm of a run.

    Args:
        curves: strategy -> accuracy of the paired baselines [sources, starts, T + 1].
        offset: iterations already done: a resumed run must not draw the same episodes again.
    """
    env = config.env()
    register_env(ENV_NAME, lambda context: VectorMultimodalALEnv(env, context["num_envs"], curves))
    runners = max(config.resources.num_env_runners, 1)
    steps = config.learner.groups * config.learner.copies * config.protocol.rounds
    kind, own = ReinforceConfig(), {}
    if config.algorithm != "reinforce":
        kind = PPOConfig({"ppo": PPO, "appo": APPO}[config.algorithm])
        own = {
            "ratio_clip": config.proximal.clip,
            "epochs": config.proximal.epochs or EPOCHS[config.algorithm],
            "minibatch_rows": config.proximal.minibatch_rows,
        }
    algorithm = (
        kind.environment(ENV_NAME)
        .env_runners(
            num_env_runners=config.resources.num_env_runners,
            num_envs_per_env_runner=config.learner.groups // runners * config.learner.copies,
            num_gpus_per_env_runner=config.resources.num_gpus_per_env_runner,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=config.protocol.rounds,
            sample_timeout_s=config.resources.patience_s,
        )
        .learners(
            num_learners=config.resources.num_learners,
            num_gpus_per_learner=config.resources.num_gpus_per_learner,
        )
        .training(
            selector=config.policy,
            batch_size=config.protocol.batch_size,
            advantage=config.learner.advantage,
            advantage_decay=config.learner.advantage_decay,
            advantage_clip=config.learner.advantage_clip,
            weight_average=config.learner.weight_average,
            lr=config.learner.learning_rate,
            grad_clip=config.learner.gradient_clip,
            train_batch_size_per_learner=steps // max(config.resources.num_learners, 1),
            **own,
        )
        .fault_tolerance(delay_between_env_runner_restarts_s=1, env_runner_health_probe_timeout_s=5)
        .debugging(seed=config.seed + 100_003 * offset, log_level="ERROR")
    )
    with held_back_errors():
        return algorithm.build_algo()


class Trainer(Protocol):
    """An algorithm at work on one run."""

    played: str  # what the figures of an iteration were measured on
    histograms: Mapping[str, np.ndarray]  # values of the last iteration by tag

    def step(self) -> tuple[dict[str, float], dict[str, float]] | None:
        """One iteration: its figures, `episodes` among them, and seconds by kind; None where nobody could play."""

    def selector(self) -> Selector:
        """The policy to export."""

    def save(self, folder: str) -> Any:
        """Write a checkpoint into an empty folder."""

    def restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint; PolicyError where that cannot be."""

    def stop(self) -> None:
        """Free what is occupied."""


class GradientTrainer:
    """Policy gradients on RLlib.

    Args:
        config: settings.
        card: of the policy; names the sources, and receives the labels of pools that are drawn.
        done: iterations already done.
        progress: shows a line while baselines are played.
    """

    played = "drawn (exploring) policy on reward rows"

    def __init__(self, config: TrainConfig, card: PolicyCard, done: int, progress: Progress):
        self.config, self.card = config, card
        self._sources = unique_names([source["name"] for source in card.trained_on])
        self.algorithm = make_algorithm(config, _curves(config, progress), done)

    def step(self) -> tuple[dict[str, float], dict[str, float]] | None:
        result = self.algorithm.train()
        if not result[RESULTS]:
            return None  # no environment runner is alive at the moment
        self._count_labels()
        timers = result["timers"]
        seconds = {"sample": timers["env_runner_sampling_timer"], "learn": timers["learner_update_timer"]}
        return _figures(result, self._sources), seconds

    def _count_labels(self) -> None:
        """Put onto the card what the pools hold that were drawn from families so far."""
        for number, labels in self.algorithm.labels.items():
            self.card.trained_on[number]["labels"] = labels
        self.card.labels_used = sum(source["labels"] for source in self.card.trained_on)

    @property
    def histograms(self) -> Mapping[str, np.ndarray]:
        return self.algorithm.drawn

    def selector(self) -> Selector:
        selector = Selector(self.config.policy)
        selector.load_state_dict(self.algorithm.averaged_state())
        return selector

    def save(self, folder: str) -> None:
        self.algorithm.save_to_path(folder)
        self.algorithm.check_learners()  # it says nothing about a learner that could not write its part

    def restore(self, checkpoint: Path) -> None:
        try:
            self.algorithm.restore_from_path(str(checkpoint.absolute()))
        except Exception as error:  # whatever RLlib raises on a damaged folder
            raise PolicyError(
                f"The checkpoint {checkpoint} cannot be read ({type(error).__name__}: {error}). Delete that folder "
                "and --resume again to go on from the one before it."
            ) from error

    def stop(self) -> None:
        self.algorithm.stop()


def _train(
    config: TrainConfig, run: RunFolder, card: PolicyCard, stopping: threading.Event, copy: RunCopy | None
) -> Path:
    progress, clock = Progress(), time.monotonic()
    checkpoint = next(iter(reversed(run.finished_checkpoints())), None)
    done = int(checkpoint.name) if checkpoint else 0
    evolution = config.algorithm == "evolution"
    trainer: Trainer = EvolutionTrainer(config, card) if evolution else GradientTrainer(config, card, done, progress)
    board = None
    try:
        if checkpoint is not None:
            trainer.restore(checkpoint)
        history = run.truncate_history(done)
        card.episodes = history[-1]["episodes"] if history else 0
        card.training_seconds = sum(row["seconds"] for row in history)
        board = Board(run.tensorboard, done + 1)
        if not done:
            board.card(run.config.read_text(encoding="utf-8"), card)
            save_policy(trainer.selector(), card, run.policy)
        iteration, minutes = done, 0.0
        while iteration < config.iterations and minutes < config.minutes and not stopping.is_set():
            began = time.monotonic()
            stepped = trainer.step()
            trained = time.monotonic()
            minutes = (trained - clock) / 60
            if stepped is None:
                continue
            iteration += 1
            figures, seconds = stepped
            card.episodes += int(figures.pop("episodes"))
            card.training_seconds += trained - began
            selector = trainer.selector()
            save_policy(selector, card, run.policy)
            row = {"iteration": iteration, "episodes": card.episodes, "seconds": trained - began}
            run.append_history(row | figures)
            run.save_checkpoint(iteration, trainer.save)
            figures |= {f"policy_weight/{k}": v for k, v in selector.named_weights().items()}
            figures |= {f"time/{k}_s": v for k, v in seconds.items()} | {
                "time/iteration_s": trained - began,
                "time/save_s": time.monotonic() - trained,
                "training/episodes": card.episodes,
            }
            board.iteration(iteration, figures)
            board.histograms(iteration, trainer.histograms)
            enough = iteration == config.iterations or minutes >= config.minutes or stopping.is_set()
            progress(_line(iteration, config, card, figures, minutes), last=enough)
            if copy is not None:
                copy.send()
        rows = run.read_history()
        if rows:
            title = f"Training on {', '.join(s['name'] for s in card.trained_on)}"
            curve = training_curve(rows, title, trainer.played)
            save_picture(curve, run.picture)
            board.picture("training/learning_curve", curve, iteration)
            if iteration > done or not run.exported.is_dir():
                progress("the exported policy plays a few episodes for TensorBoard", last=True)
                write_exported(config, trainer.selector(), run.exported)
    finally:
        if board is not None:
            board.close()
        trainer.stop()
    if copy is not None:
        copy.finish()
    return run.policy


def _curves(config: TrainConfig, progress: Progress) -> dict[str, np.ndarray]:
    """The paired baselines' curves, from the cache or played now."""
    names = ", ".join(config.reward.baselines)

    def say(done: int, total: int) -> None:
        progress(f"baseline curves ({names}): {done} of {total} parts", last=done == total)

    return baseline_curves(config.env(), config.reward.baselines, say)


def _figures(result: dict[str, Any], sources: Sequence[str]) -> dict[str, float]:
    """This iteration's figures, flat; of sources by name, of those that it played."""
    figures = {}
    for name, value in result[RESULTS].items():
        if name.startswith("source/"):
            _, number, kind = name.split("/", 2)
            name = f"source_{kind}/{sources[int(number)]}"
        figures[name] = float(value)
    return figures


def _line(iteration: int, config: TrainConfig, card: PolicyCard, figures: dict[str, float], minutes: float) -> str:
    gains = "  ".join(
        f"{100 * value:+.2f} vs {name.removeprefix('aulc_minus/')}"
        for name, value in figures.items()
        if name.startswith("aulc_minus/")
    )
    return (
        f"iteration {iteration}/{config.iterations}  {card.episodes} episodes  {minutes:.1f} min  "
        f"AULC {100 * figures['aulc']:.2f}  {gains}"
    )
