"""Training a selection policy: from settings to a run folder with a policy in it."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.tune.registry import register_env

from envs.errors import ConfigError, PolicyError
from envs.multimodal_al import Source, VectorMultimodalALEnv
from envs.roles import partition
from envs.sources import absolute_name
from learners.baseline_curves import baseline_curves
from learners.reinforce import RESULTS, Reinforce, ReinforceConfig
from learners.run_folder import RunFolder
from learners.runtime import check_gpus, held_back_errors, local_ray
from learners.settings import TrainConfig, build, read_yaml, to_yaml
from learners.telemetry import Board, Progress, draw_learning_curve
from policies.selector import PolicyCard, Selector, save_policy
from policies.strategies import get_strategy

ENV_NAME = "rl_mba_multimodal_al"
PACKAGES = ("ray", "torch", "gymnasium", "numpy")


def train(config: TrainConfig, out: str | Path, resume: bool = False) -> Path:
    """Train a policy; returns its folder.

    Args:
        config: the settings; with `resume` those of the folder are used and only `minutes` is taken from here.
        out: run folder.
        resume: go on from the last checkpoint of an interrupted run.

    Raises:
        RLMBAError: on bad settings or data, before any work starts.
    """
    run = RunFolder(out)
    if resume:
        if not run.is_run():
            raise ConfigError(f"{out} holds no run to resume; start one without --resume.")
        config = dataclasses.replace(build(TrainConfig, read_yaml(run.config)), minutes=config.minutes)
    elif not run.is_vacant():
        raise ConfigError(f"{out} is not empty; choose another --out, or --resume the run that is there.")
    for name in config.reward.baselines:
        get_strategy(name)
    check_gpus(config.resources.gpus)
    card = _card(config)
    config = dataclasses.replace(config, datasets=tuple(absolute_name(name) for name in config.datasets))
    torch.set_num_threads(1)  # the driver shares the cores with its runners
    run.lock()
    try:
        if not resume:
            run.write_text(run.config, to_yaml(config))
        with local_ray(config.resources.processes), stop_requested() as stopping:
            return _train(config, run, card, stopping)
    finally:
        run.release()


def _card(config: TrainConfig) -> PolicyCard:
    """Check the data sets; say what a policy trained on them has seen."""
    env, sources = config.env(), []
    for name in config.datasets:
        pool = Source(dataclasses.replace(env, device="cpu"), name).pool
        labels = len(partition(pool).policy)
        sources.append({"name": pool.name, "fingerprint": pool.fingerprint, "labels": labels})
    return PolicyCard(
        candidates=config.candidates,
        trained_on=sources,
        labels_used=sum(s["labels"] for s in sources),
        seed=config.seed,
        preset=config.preset,
        versions={p: version(p) for p in PACKAGES},
    )


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets; the second one interrupts at once."""
    event = threading.Event()

    def ask(signum: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        print("\nStopping after this iteration; once more to stop at once.", flush=True)

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


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
    algorithm = (
        ReinforceConfig()
        .environment(ENV_NAME)
        .env_runners(
            num_env_runners=config.resources.num_env_runners,
            num_envs_per_env_runner=config.learner.groups // runners * config.learner.copies,
            num_gpus_per_env_runner=config.resources.num_gpus_per_env_runner,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=config.protocol.rounds,
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
        )
        .fault_tolerance(delay_between_env_runner_restarts_s=1, env_runner_health_probe_timeout_s=5)
        .debugging(seed=config.seed + 100_003 * offset, log_level="ERROR")
    )
    with held_back_errors():
        return algorithm.build_algo()


def _train(config: TrainConfig, run: RunFolder, card: PolicyCard, stopping: threading.Event) -> Path:
    progress, clock = Progress(), time.monotonic()
    curves = _curves(config, progress)
    checkpoint = next(iter(reversed(run.finished_checkpoints())), None)
    done = int(checkpoint.name) if checkpoint else 0
    algorithm = make_algorithm(config, curves, done)
    board = None
    try:
        if checkpoint is not None:
            _restore(algorithm, checkpoint)
        history = run.truncate_history(done)
        card.episodes = history[-1]["episodes"] if history else 0
        board = Board(run.tensorboard, done + 1)
        if not done:
            board.text("run/config", "```yaml\n" + run.config.read_text(encoding="utf-8") + "```")
            save_policy(_averaged(algorithm, config), card, run.policy)
        iteration, minutes = done, 0.0
        while iteration < config.learner.iterations and minutes < config.minutes and not stopping.is_set():
            began = time.monotonic()
            result = algorithm.train()
            trained = time.monotonic()
            minutes = (trained - clock) / 60
            if not result[RESULTS]:
                continue  # no environment runner is alive at the moment
            iteration += 1
            figures = _figures(result)
            card.episodes += int(figures.pop("episodes"))
            averaged = _averaged(algorithm, config)
            save_policy(averaged, card, run.policy)
            run.append_history({"iteration": iteration, "episodes": card.episodes, **figures})
            run.save_checkpoint(iteration, algorithm.save_to_path)
            figures |= {f"policy_weight/{k}": v for k, v in averaged.named_weights().items()} | {
                "time/iteration_s": trained - began,
                "time/sample_s": result["timers"]["env_runner_sampling_timer"],
                "time/learn_s": result["timers"]["learner_update_timer"],
                "time/save_s": time.monotonic() - trained,
                "training/episodes": card.episodes,
            }
            board.iteration(iteration, figures)
            enough = iteration == config.learner.iterations or minutes >= config.minutes or stopping.is_set()
            progress(_line(iteration, config, card, figures, minutes), last=enough)
        rows = run.read_history()
        if rows:
            draw_learning_curve(rows, run.picture, f"Training on {', '.join(s['name'] for s in card.trained_on)}")
    finally:
        if board is not None:
            board.close()
        algorithm.stop()
    return run.policy


def _curves(config: TrainConfig, progress: Progress) -> dict[str, np.ndarray]:
    """The paired baselines' curves, from the cache or played now."""
    names = ", ".join(config.reward.baselines)

    def say(done: int, total: int) -> None:
        progress(f"baseline curves ({names}): {done} of {total} parts", last=done == total)

    return baseline_curves(config.env(), config.reward.baselines, say)


def _restore(algorithm: Reinforce, checkpoint: Path) -> None:
    try:
        algorithm.restore_from_path(str(checkpoint.absolute()))
    except Exception as error:  # whatever RLlib raises on a damaged folder
        raise PolicyError(
            f"The checkpoint {checkpoint} cannot be read ({type(error).__name__}: {error}). Delete that folder and "
            "--resume again to go on from the one before it."
        ) from error


def _averaged(algorithm: Reinforce, config: TrainConfig) -> Selector:
    selector = Selector(config.policy)
    selector.load_state_dict(algorithm.averaged_state())
    return selector


def _figures(result: dict[str, Any]) -> dict[str, float]:
    """This iteration's figures, flat; AULC differences to the paired baselines among them."""
    figures = {name: float(value) for name, value in result[RESULTS].items()}
    figures["aulc"] = figures["accuracy"]  # a mean over the rounds after the first
    for name in [n for n in figures if n.startswith("baseline/")]:
        figures[f"aulc_minus/{name.removeprefix('baseline/')}"] = figures["aulc"] - figures[name]
    return figures


def _line(iteration: int, config: TrainConfig, card: PolicyCard, figures: dict[str, float], minutes: float) -> str:
    gains = "  ".join(
        f"{100 * value:+.2f} vs {name.removeprefix('aulc_minus/')}"
        for name, value in figures.items()
        if name.startswith("aulc_minus/")
    )
    return (
        f"iteration {iteration}/{config.learner.iterations}  {card.episodes} episodes  {minutes:.1f} min  "
        f"AULC {100 * figures['aulc']:.2f}  {gains}"
    )
