"""Training a selection policy: from settings to a run folder with a policy in it."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envs.errors import ConfigError
from envs.origin import is_signed_folder, refuse_links_out, sign_folder
from envs.pools import Pool
from envs.pools.partition import partition
from envs.registry import names_of
from envs.source import open_source
from envs.sources import absolute_name, is_family
from learners.placement import describe, size_of
from learners.recording import RunRecorder
from learners.run_folder import RunFolder
from learners.settings import TrainConfig, build, read_yaml, to_yaml
from learners.storage import RunCopy
from policies.policy_file import PolicyCard
from policies.strategies import get_strategy
from runtime.cluster import check_gpus, faults_in_words, local_ray
from runtime.progress import Progress
from runtime.signals import stop_requested

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
    run = RunFolder(out)
    trusted = trust or not resume or is_signed_folder(run.root)
    if not trusted:
        refuse_links_out(run.root)
    copy = RunCopy(storage, run) if storage else None
    if copy is not None and resume:
        copy.fetch()
    elif copy is not None:
        copy.refuse_other_run()
    if resume:
        if not run.is_run():
            raise ConfigError(f"{out} holds no run to resume; start one without --resume.")
        with names_of(run.config, trusted):
            config = dataclasses.replace(build(TrainConfig, read_yaml(run.config)), minutes=config.minutes)
            _check_baselines(config)
    elif not run.is_vacant():
        raise ConfigError(f"{out} is not empty; choose another --out, or --resume the run that is there.")
    _check_baselines(config)
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
            sign_folder(run.root)
        alone = not (config.trainer.needs_ray or config.resources.num_env_runners)
        cluster = nullcontext() if alone else local_ray(config.resources.processes)
        with cluster, stop_requested() as stopping, faults_in_words(run.root):
            return _train(config, run, card, stopping, copy, trust)
    finally:
        run.release()


def _check_baselines(config: TrainConfig) -> None:
    if config.trainer.needs_baselines:
        for name in config.reward.baselines:
            get_strategy(name)


def opened(config: TrainConfig) -> list[Pool]:
    """The data sets that a run trains on, checked; of a family one that is drawn from it."""
    return [open_source(name, config.protocol, np.random.default_rng(config.seed)) for name in config.datasets]


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
    progress, clock = Progress(), time.monotonic()
    checkpoint = next(iter(reversed(run.finished_checkpoints())), None)
    done = int(checkpoint.name) if checkpoint else 0
    trainer = config.trainer(config, card, done, progress.say)
    trainer.trusts_checkpoints = trust
    iteration, minutes = done, 0.0

    def over() -> bool:
        return iteration >= config.iterations or minutes >= config.minutes or stopping.is_set()

    try:
        if checkpoint is not None:
            trainer.restore(checkpoint)
        with closing(RunRecorder(trainer, run, progress, copy)) as recorder:
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
                recorder.say(iteration, figures, minutes, last=over())
                recorder.send()
            recorder.conclude(iteration)
    finally:
        trainer.stop()
    if copy is not None:
        copy.finish()
    return run.policy
