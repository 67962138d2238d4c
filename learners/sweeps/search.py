"""`tune`: many trainings with different settings, searched by Ray Tune.

    out/
        sweep.yaml              what is searched, resolved
        tune/                   Ray Tune's own state, from which --resume goes on
        trials/<id>/            a run folder for each trial, see learners.run_folder
        pareto.json, pareto.png, table.md, chosen.yaml

A trial's policy is measured by its greedy episodes on the rows that policies train on, at starts that no training
used, the same for all trials: the rows on which `compare` judges stay unseen.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import yaml
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from envs.errors import ConfigError, TrustError, shorten
from envs.fields import flat
from envs.origin import is_signed_folder, sign_folder
from envs.reading import parse_json, reading, typed
from envs.source import open_source, training_starts, training_trainer
from envs.sources import absolute_name, is_family, open_dataset
from learners.algorithms.population import Arena, play_population
from learners.run_folder import RunFolder
from learners.settings import TrainConfig, build, read_yaml, to_yaml
from learners.storage import RunCopy
from learners.sweeps.config import MEASURED, SweepConfig
from learners.sweeps.pareto import choose, draw, front_shares, pareto_front, table
from learners.telemetry.board import Board
from learners.training import train
from policies.policy_file import load_policy
from runtime.cluster import faults_in_words, local_ray
from runtime.progress import Progress

FIRST_START = 1_000_000  # seeds of the measured starts; those of training begin at 0
SPACES = {"uniform": tune.uniform, "loguniform": tune.loguniform, "randint": tune.randint}
DESCRIBED = "sweep.yaml"
SLICE, POLICY = "slice.json", "policy_folder"  # of a checkpoint that trials exchange
BY_START = "by_start"  # beside the means in a trial's report: the figures of each measured start


def sweep(
    config: SweepConfig | None,
    out: str | Path,
    resume: bool = False,
    storage: str | None = None,
    given: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Search; returns the content of pareto.json.

    Args:
        config: what to search; with `resume` that of the folder is used in its place.
        out: folder of the sweep.
        resume: go on from an interrupted sweep; trials that had begun go on from their last checkpoints.
        storage: folder or URL that receives Ray Tune's state, copies of the trials' run folders after each slice, and
            of what the sweep ends with; the trials' machines need share no other folder.
        given: with `resume`, settings that the sweep in the folder must have.
        trust: resume whatever is there, although Ray Tune's state can run code of whoever wrote it.

    Raises:
        RLMBAError: on bad settings or data, before any trial starts; where every trial failed, or another process is
            at work in the folder.
    """
    out = Path(out).absolute()
    folder = RunFolder(out)
    copy = RunCopy(storage, folder, DESCRIBED, skip=("tune", "trials")) if storage else None
    if copy is not None and resume:
        copy.fetch()
    elif copy is not None:
        copy.refuse_other_run()
    place = copy.place if copy is not None else None
    if resume and not trust:
        _check_origin(out, place)
    config = _with_data(_resumed(out, given or {}) if resume else _fresh(config, folder))
    folder.lock()
    try:
        if not resume:
            _fresh(config, folder)  # another sweep may have begun since
        with local_ray(config.concurrent), faults_in_words(out):
            if not resume:
                folder.write_text(out / DESCRIBED, to_yaml(config))
                sign_folder(out, place)
            if copy is not None:
                copy.send()
            found = _search(config, out, place, resume, trust)
        summary = _conclude(config, out, found)
        if copy is not None:
            copy.finish()
        return summary
    finally:
        folder.release()


def _resumed(out: Path, given: Mapping[str, Any]) -> SweepConfig:
    """What the sweep in a folder searches.

    Raises:
        ConfigError: where there is none, or another than was given.
    """
    if not (out / DESCRIBED).is_file():
        raise ConfigError(f"{out} holds no sweep to resume; start one without --resume.")
    settings = read_yaml(out / DESCRIBED)
    before, now = _comparable(settings), _comparable(given)
    for name in now:
        if name not in before or before[name] != now[name]:
            held = f"{name} = {before[name]}" if name in before else f"no {name}"
            raise ConfigError(
                f"{out} holds a sweep with {held}, and this command says {now[name]}. --resume goes on with what is "
                "there: leave that out, or begin another sweep in another --out."
            )
    return build(SweepConfig, settings)


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a sweep by their dotted names, with the absolute names of data sets."""
    named = flat(settings)
    if isinstance(datasets := named.get("train.datasets"), list | tuple):
        named["train.datasets"] = [absolute_name(str(name)) for name in datasets]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in named.items()}


def _fresh(config: SweepConfig | None, folder: RunFolder) -> SweepConfig:
    """A new sweep, whose folder is vacant."""
    if not folder.is_vacant():
        raise ConfigError(f"{folder.root} is not empty; choose another --out, or --resume the sweep that is there.")
    if config is None:
        raise ValueError("config may be None only where a sweep is resumed")
    return config


def _with_data(config: SweepConfig) -> SweepConfig:
    """The sweep with the absolute names of its data sets, on each of which an episode fits."""
    sample = config.first()
    for name in sample.datasets:
        if is_family(name):
            raise ConfigError(f"'{name}' is no single pool, and a sweep measures every trial on the same one.")
        # Raises ConfigError where the data set cannot supply the budget.
        open_source(name, sample.protocol, np.random.default_rng(sample.seed))
    datasets = [absolute_name(name) for name in sample.datasets]
    return replace(config, train=dict(config.train) | {"datasets": datasets})


def _check_origin(out: Path, place: str | None) -> None:
    """Raise TrustError where somebody else may have written the sweep in a folder, whose state Ray Tune unpickles."""
    if (out / DESCRIBED).is_file() and not is_signed_folder(out, place):
        raise TrustError(
            f"The sweep in {place or out} was not begun there by this user of this machine, and its state (Ray Tune's, "
            "pickled) can run any code of whoever wrote it. If that was you or somebody you trust, go on with "
            "--resume --trust-checkpoint."
        )


def _search(config: SweepConfig, out: Path, place: str | None, resume: bool, trust: bool) -> tune.ResultGrid:
    """Run the trials, or those that are left; their state lies at `place`, else in `out`."""
    tried = tune.with_parameters(_trial, config=config, out=str(out), place=place, trust=trust)
    tried = tune.with_resources(tried, {"cpu": 1})
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # each trial writes its own events
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    tuner = _restored(place or str(out), tried) if resume else None
    if tuner is None:
        tuner = tune.Tuner(
            tried,
            param_space={} if config.search == "optuna" else _space(config),
            tune_config=_tune_config(config),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=place or str(out),
                verbose=0,
                callbacks=[_Show(config.trials, list(config.objectives))],
            ),
        )
    return tuner.fit()


def _restored(place: str, tried: Any) -> tune.Tuner | None:
    """The interrupted sweep in a folder or URL; None where it had not begun."""
    folder = f"{place}/tune"
    if not tune.Tuner.can_restore(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return tune.Tuner.restore(folder, trainable=tried, resume_unfinished=True, resume_errored=True)


def _space(config: SweepConfig) -> dict[str, Any]:
    space = {}
    for name, values in config.space.items():
        (kind, given), *_ = values.items()
        space[name] = tune.choice(given) if kind == "choice" else SPACES[kind](*given)
    return space


def _tune_config(config: SweepConfig) -> tune.TuneConfig:
    common = {"num_samples": config.trials, "max_concurrent_trials": config.concurrent}
    (first, mode), *_ = config.objectives.items()
    if config.search == "optuna":
        modes = list(config.objectives.values())
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        search = OptunaSearch(
            _space(config),
            metric=list(config.objectives) if len(modes) > 1 else first,
            mode=modes if len(modes) > 1 else mode,
            seed=config.seed,
        )
        # The limiter tells Optuna a result before it asks for the next trial.
        return tune.TuneConfig(num_samples=config.trials, search_alg=ConcurrencyLimiter(search, config.concurrent))
    if config.search == "asha":
        scheduler: Any = ASHAScheduler(
            time_attr="training_iteration", metric=first, mode=mode, max_t=config.slices, grace_period=1,
            reduction_factor=2,
        )  # fmt: skip
    else:
        scheduler = PopulationBasedTraining(
            time_attr="training_iteration", metric=first, mode=mode, perturbation_interval=1,
            hyperparam_mutations=_space(config),
        )  # fmt: skip
    return tune.TuneConfig(scheduler=scheduler, **common)


def _trial(chosen: dict[str, Any], config: SweepConfig, out: str, place: str | None, trust: bool) -> None:
    """One trial, in a process of its own: train in slices, measure after each."""
    torch.set_num_threads(1)
    context = tune.get_context()
    run = RunFolder(Path(out) / "trials" / context.get_trial_id())
    whole = config.train_config(chosen)
    whole = replace(whole, minutes=1e6, resources=replace(whole.resources, num_env_runners=0, num_learners=0))
    done = 0
    taken = tune.get_checkpoint()
    if taken is not None:  # of this trial before a failure, or of a stronger one
        with taken.as_directory() as folder:
            done = slices_done(Path(folder) / SLICE, config.slices)
            if config.search == "population":
                shutil.rmtree(run.root, ignore_errors=True)
                shutil.copytree(Path(folder) / POLICY, run.root)
    copy = RunCopy(f"{place}/trials", run) if place else None
    if copy is not None and done and not run.is_run():
        copy.fetch()  # it went on another machine before
    for part in range(done, config.slices):
        iterations = round(whole.iterations * (part + 1) / config.slices)
        now = whole.until(iterations)
        resume = run.is_run() and bool(run.finished_checkpoints())
        if not resume:
            shutil.rmtree(run.root, ignore_errors=True)
        else:
            run.write_text(run.config, to_yaml(replace(now, datasets=tuple(map(absolute_name, now.datasets)))))
        train(now, run.root, resume=resume, trust=trust)
        measured = measure(now, run.policy, config.starts)
        if copy is not None:
            copy.send()
        with _checkpoint(run, part + 1, config.search == "population") as folder:
            by_start = {name: values.tolist() for name, values in measured.items()}
            report = _means(measured) | {BY_START: by_start}
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))
    board = Board(run.tensorboard, None)
    board.hparams(chosen, _means(measure(whole, run.policy, config.starts)))
    board.close()
    if copy is not None:
        copy.finish()


def slices_done(file: Path, slices: int) -> int:
    """How many slices a trial had done when it wrote a checkpoint, of so many.

    Raises:
        ConfigError: where the file says no such number.
    """
    words = "says not how far its trial had come ({reason}); restore it, or begin another sweep in another --out"
    with reading(file, words, ConfigError):
        done = typed(int, parse_json(file.read_text(encoding="utf-8"))["done"])
        if not 0 <= done <= slices:
            raise ValueError(f"{shorten(done)} slices of {slices}")
        return done


def _checkpoint(run: RunFolder, done: int, whole: bool) -> Any:
    """A temporary folder with what another process needs to go on."""
    folder = tempfile.TemporaryDirectory()
    Path(folder.name, SLICE).write_text(json.dumps({"done": done}))
    if whole:
        keep = shutil.ignore_patterns("tensorboard", ".lock")
        shutil.copytree(run.root, Path(folder.name) / POLICY, ignore=keep)
    return folder


def measure(config: TrainConfig, policy: Path, starts: int) -> dict[str, np.ndarray]:
    """What greedy episodes of a linear policy come to on each start, [starts], means over data sets, fractions of 1."""
    selector, _ = load_policy(policy)
    arena = Arena(config.protocol, config.candidates, config.reward, config.policy)
    weights = selector.weights.detach().numpy()[None]
    found = []
    for name in config.datasets:
        pool = open_dataset(name)
        played = training_starts(pool, config.protocol, range(FIRST_START, FIRST_START + starts))
        found.append(play_population(training_trainer(pool, config.model), played, arena, weights))
    renamed = {"aulc": "accuracy", "hard_third": "hard_accuracy"}
    return {n: np.mean([f[renamed.get(n, n)][:, 0] for f in found], axis=0) for n in MEASURED}


def _means(measured: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in measured.items()}


class _Show(tune.Callback):
    """A line for every trial that ends."""

    def __init__(self, trials: int, objectives: list[str]):
        self._trials, self._objectives, self._ended = trials, objectives, 0
        self._progress = Progress()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended += 1
        result = trial.last_result or {}
        values = "  ".join(f"{n} {100 * result[n]:.2f}" for n in self._objectives if n in result)
        self._progress.say(f"trial {trial.trial_id}  {self._ended} of {self._trials} ended  {values}", last=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._ended += 1
        self._progress.say(f"trial {trial.trial_id} failed: see {trial.local_path}", last=True)


def _conclude(config: SweepConfig, out: Path, results: Any) -> dict[str, Any]:
    objectives = list(config.objectives)
    ended = [r for r in results if r.metrics and all(name in r.metrics for name in objectives)]
    if not ended:
        failed = next((r.error for r in results if r.error), "none was begun")
        raise ConfigError(f"No trial of the sweep ended: {failed}. Look into {out / 'tune'}.")
    sign = np.array([1.0 if mode == "max" else -1.0 for mode in config.objectives.values()])
    values = sign * np.array([[r.metrics[name] for name in objectives] for r in ended])
    front, best = pareto_front(values), choose(values)
    by_start = [{name: r.metrics[BY_START][name] for name in objectives} for r in ended]
    shares = front_shares(sign[:, None] * np.array([[b[name] for name in objectives] for b in by_start]))
    trials = [
        {
            "trial": r.metrics["trial_id"],
            "settings": {name: r.config[name] for name in config.space},
            "objectives": {name: r.metrics[name] for name in objectives},
            "by_start": by_start[i],
            "slices": r.metrics["training_iteration"],
            "front": bool(front[i]),
            "front_share": float(shares[i]),
            "chosen": i == best,
        }
        for i, r in enumerate(ended)
    ]
    chosen = config.train_config(trials[best]["settings"])
    summary = {"datasets": list(chosen.datasets), "objectives": config.objectives, "trials": trials}
    folder = RunFolder(out)
    folder.write_text(out / "pareto.json", json.dumps(summary, indent=2) + "\n")
    folder.write_text(out / "table.md", table(trials, list(config.space), objectives) + "\n")
    plain = yaml.safe_load(to_yaml(chosen))
    folder.write_text(out / "chosen.yaml", yaml.safe_dump(plain, sort_keys=False))
    draw(trials, objectives, out / "pareto.png", f"{len(trials)} trials on {', '.join(map(_name, chosen.datasets))}")
    return summary


def _name(dataset: str) -> str:
    return Path(dataset).stem if "/" in dataset else dataset
