"""Training a selection policy: from settings to a run folder with a policy in it."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.errors import ConfigError
from envs.fields import flat
from envs.origin import is_signed_folder, refuse_links_out, sign_folder
from envs.pools import Pool
from envs.pools.partition import partition
from envs.registry import names_of
from envs.source import open_source
from envs.sources import absolute_name, is_family
from learners.placement import describe, size_of
from learners.recording import RunRecorder
from learners.run_folder import RunFolder
from learners.settings import TrainConfig, build, merge, read_yaml, to_yaml
from learners.storage import RunCopy
from policies.policy_file import PolicyCard
from policies.start import describe_start, seen_before
from policies.strategies import get_strategy
from runtime.cluster import check_gpus, faults_in_words, local_ray
from runtime.progress import Progress
from runtime.signals import stop_requested

# What a run that is resumed may be given anew: how long it trains, and what it occupies.
FREE = ("minutes", "resources.", "learner.iterations", "evolution.generations")
LEAST_ITERATIONS = 3  # of a run, even where its minutes are over before: fewer teach a policy next to nothing
PACKAGES = ("ray", "torch", "gymnasium", "numpy", "cma")


def train(
    config: TrainConfig, out: str | Path, resume: bool = False, storage: str | None = None, trust: bool = False
) -> Path:
    """Train a policy; returns its folder.

    Args:
        config: the settings; with `resume` those of the folder are used and only `minutes` is taken from here.
        out: run folder.
        resume: go on from the last checkpoint of an interrupted run.
        storage: folder or URL that receives a copy of the run folder after each iteration; a run is resumed from it
            where it has come further there than in `out`.
        trust: resume whatever is there, also where that runs code of whoever wrote it.

    Raises:
        RLMBAError: on bad settings or data, before any work starts; at the end, where the copy is not complete.
    """
    if resume:
        return go_on(out, {"minutes": config.minutes}, storage, trust)
    run = RunFolder(out)
    copy = RunCopy(storage, run) if storage else None
    if copy is not None:
        copy.refuse_other_run()
    _check_vacant(run)
    _check_baselines(config)
    return _work(config, run, copy)


def go_on(out: str | Path, given: Mapping[str, Any], storage: str | None = None, trust: bool = False) -> Path:
    """Go on with an interrupted run; returns its policy's folder.

    Args:
        out, storage, trust: as of `train`.
        given: settings laid over those of the folder. How long the run trains and what it occupies may be other than
            before, all else must be as there; minutes hold for this time.

    Raises:
        RLMBAError: as `train`; where there is no run, or another one than was given.
    """
    run = RunFolder(out)
    trusted = trust or is_signed_folder(run.root)
    if not trusted:
        refuse_links_out(run.root)
    copy = RunCopy(storage, run) if storage else None
    if copy is not None:
        copy.fetch()
    with names_of(run.config, trusted):
        held = _held(run)
        _check_baselines(held)
    settings = {name: value for name, value in dataclasses.asdict(held).items() if name != "preset"}
    config = build(TrainConfig, merge(settings, given))
    if "preset" not in given:
        config = dataclasses.replace(config, preset=held.preset)
    _check_goes_on(held, config, run)
    return _work(config, run, copy, held, trust)


def _work(
    config: TrainConfig, run: RunFolder, copy: RunCopy | None, held: TrainConfig | None = None, trust: bool = False
) -> Path:
    """Train in a folder: a new run, or the one with the settings that it holds."""
    check_gpus(config.resources.gpus)
    pools = opened(config)
    card = policy_card(config, pools)
    config = _with_absolute_names(config)
    torch.set_num_threads(1)  # the driver shares the cores with its runners
    run.lock()
    try:
        if held is None:
            _check_vacant(run)  # another run may have begun and ended since
        lines = [*describe(config, [size_of(pool, config) for pool in pools]), describe_start(config.policy)]
        print(*lines, sep="\n", flush=True)
        alone = not (config.trainer.needs_ray or config.resources.num_env_runners)
        cluster = nullcontext() if alone else local_ray(config.resources.processes)
        with cluster, stop_requested() as stopping, faults_in_words(run.root):
            if held is None:
                run.clear()
            minutes = config.minutes if held is None else held.minutes
            run.write_text(run.config, to_yaml(dataclasses.replace(config, minutes=minutes)))
            if held is None:
                sign_folder(run.root)
            return _train(config, run, card, stopping, copy, trust)
    finally:
        run.release()


def _held(run: RunFolder) -> TrainConfig:
    """Settings of the run in a folder."""
    if not run.is_run():
        raise ConfigError(f"{run.root} holds no run to resume; start one without --resume.")
    settings = read_yaml(run.config)
    preset = settings.pop("preset", None)  # a name only: all that it decided stands here
    config = build(TrainConfig, settings)
    return config if preset is None else dataclasses.replace(config, preset=preset)


def _check_vacant(run: RunFolder) -> None:
    if not run.is_vacant():
        raise ConfigError(f"{run.root} is not empty; choose another --out, or --resume the run that is there.")


def _check_goes_on(held: TrainConfig, config: TrainConfig, run: RunFolder) -> None:
    """Raise ConfigError, with the first setting that differs, where a run would not go on as what it is."""
    before, now = (flat(dataclasses.asdict(_with_absolute_names(c))) for c in (held, config))
    for name in dict.fromkeys([*now, *before]):
        if before.get(name) != now.get(name) and not name.startswith(FREE):
            raise ConfigError(
                f"{run.root} holds a run with {name} = {before.get(name)}, and this command says {now.get(name)}. "
                "--resume goes on with what is there: leave that out, or train into another --out."
            )


def _with_absolute_names(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, datasets=tuple(absolute_name(name) for name in config.datasets))


def _check_baselines(config: TrainConfig) -> None:
    if config.trainer.needs_baselines:
        for name in config.reward.baselines:
            get_strategy(name)


def opened(config: TrainConfig) -> list[Pool]:
    """The data sets that a run trains on, checked; of a family one that is drawn from it.

    Raises:
        ConfigError: where one cannot supply the budget, or is the same as another.
    """
    pools = [open_source(name, config.protocol, np.random.default_rng(config.seed)) for name in config.datasets]
    seen: dict[str, str] = {}
    for name, pool in zip(config.datasets, pools, strict=True):
        if not is_family(name) and (other := seen.setdefault(pool.fingerprint, name)) != name:
            raise ConfigError(f"'{name}' is the same data set as '{other}'; name it once.")
    return pools


def policy_card(config: TrainConfig, pools: Sequence[Pool]) -> PolicyCard:
    """What a policy trained on these data sets has seen."""
    sources: list[dict[str, Any]] = []
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
        pretrained_on=seen_before(config.policy),
        seed=config.seed,
        preset=config.preset,
        versions={p: version(p) for p in PACKAGES},
        algorithm=config.algorithm,
    )


def _train(
    config: TrainConfig,
    run: RunFolder,
    card: PolicyCard,
    stopping: threading.Event,
    copy: RunCopy | None,
    trust: bool,
) -> Path:
    progress = Progress()
    checkpoint = next(iter(reversed(run.finished_checkpoints())), None)
    done = int(checkpoint.name) if checkpoint else 0
    trainer = config.trainer(config, card, done, progress.say)
    trainer.trusts_checkpoints = trust
    iteration, minutes = done, 0.0

    def over() -> bool:
        enough = minutes >= config.minutes and iteration >= LEAST_ITERATIONS
        return enough or iteration >= config.iterations or stopping.is_set()

    try:
        if checkpoint is not None:
            trainer.restore(checkpoint)
        with closing(RunRecorder(trainer, run, progress, copy)) as recorder:
            clock = time.monotonic()  # training alone: Ray has started, and the baselines have been played
            while not over():
                began = time.monotonic()
                stepped = trainer.step()
                ended = time.monotonic()
                minutes = (ended - clock) / 60
                if stepped is None:
                    continue
                iteration += 1
                figures = recorder.keep(iteration, *stepped, seconds=ended - began)
                recorder.show(iteration, figures)
                late = minutes >= config.minutes and not over()
                note = f"  time is over: up to iteration {LEAST_ITERATIONS}" if late else ""
                recorder.say(iteration, figures, minutes, last=over(), note=note)
                recorder.send()
            recorder.conclude(iteration)
    finally:
        trainer.stop()
    if copy is not None:
        copy.finish()
    return run.policy
