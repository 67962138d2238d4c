"""Policies for data that they never saw: trained on other sources, compared on the one that was left out.

out/plan.json                 sources, trainings and settings; decides whether a command goes on or is refused
out/training/<name>/          a run folder for each training, with a mark once it ended by itself
out/policies/<target>/        the average of all policies whose training did not see the target
out/policy/                   the average of all policies
out/comparison/<budget>/      every target's policy against fixed strategies, as `compare` writes it
out/leave_one_out.json, .md   what follows from it
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from envs.errors import ConfigError
from envs.sources import is_family
from evaluation.comparison import compare
from evaluation.leave_one_out.plan import LeaveOneOutConfig, Plan, make_plan
from evaluation.leave_one_out.result import LeaveOneOut, Origin, judge_targets
from evaluation.leave_one_out.table import markdown
from learners.run_folder import RunFolder
from learners.settings import TrainConfig
from learners.training import train
from policies.averaging import average_policies
from policies.policy_file import PolicyCard, load_policy, save_policy
from policies.selector import Selector
from runtime.progress import Progress
from runtime.signals import interruptions

FINISHED = "finished"  # mark in the folder of a training that ended by itself


def leave_one_out(
    config: LeaveOneOutConfig, out: Path | str, progress: Callable[..., None] = print, trust: bool = False
) -> LeaveOneOut:
    """Train, average and compare; what is finished in `out` is not done again.

    Args:
        progress: called with a line of text, as by `compare`.
        trust: go on with trainings in `out` whoever wrote them, also where that runs code; see `train`.

    Returns:
        what the policies are worth; leave_one_out.json is made of it.

    Raises:
        RLMBAError: on bad settings or data, before any work starts; where `out` holds another plan.
        KeyboardInterrupt: at Ctrl-C or SIGTERM, after the generation that trains; finished work is kept.
    """
    plan = make_plan(config)
    folder = RunFolder(out)
    try:
        folder.lock()
        try:
            plan.record(folder)
            return _work(plan, folder, progress, trust)
        finally:
            folder.release()
    except OSError as error:
        place = error.filename or out
        raise ConfigError(f"Cannot write {place}: {error.strerror}; choose another --out.") from error


def _work(plan: Plan, folder: RunFolder, progress: Callable[..., None], trust: bool) -> LeaveOneOut:
    runs = _train_all(plan, folder, progress, trust)
    policies = folder.root / "policies"
    cards = _average_all(plan, runs, policies)
    save_policy(*_average(list(runs.values())), folder.policy)

    origins = {
        source.name: Origin(
            evaluated_on=source.evaluates,
            drawn_from=source.trains if is_family(source.trains) else None,
            policies_averaged=plan.unseen(source),
            labels_used=cards[source.name].labels_used,
        )
        for source in plan.sources
    }
    judged = {}
    for protocol in plan.config.protocols:
        sources = plan.targets(protocol)
        settings = plan.config.comparison([s.evaluates for s in sources], [s.name for s in sources], policies, protocol)
        if len(plan.config.protocols) > 1:
            progress(f"leave-one-out: comparison with {protocol.name} labels, on {len(sources)} data sets")
        comparison = compare(settings, folder.root / "comparison" / protocol.name, progress)
        judged[protocol.name] = judge_targets(comparison.datasets, {s.name: origins[s.name] for s in sources})
    result = LeaveOneOut(plan.config.splits, plan.training_seeds, judged)
    folder.write_text(folder.root / "leave_one_out.md", markdown(result))
    content = json.dumps(result.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    folder.write_text(folder.root / "leave_one_out.json", content + "\n")
    return result


def _train_all(plan: Plan, folder: RunFolder, progress: Callable[..., None], trust: bool) -> dict[str, Path]:
    """Train what is not finished; the run folder of each training."""
    runs = {training.name: folder.root / "training" / training.name for training in plan.trainings}
    opens = {source.name: source.trains for source in plan.sources}
    line = Progress(progress)
    for number, training in enumerate(plan.trainings, 1):
        text = f"leave-one-out: training {number} of {len(plan.trainings)}, {training.name}"
        if (runs[training.name] / FINISHED).exists():
            line.say(f"{text}: already there", last=True)
            continue
        line.say(f"{text}: on {', '.join(training.sources)}", last=True)
        datasets = tuple(opens[name] for name in training.sources)
        _train(replace(plan.config.training, datasets=datasets, seed=training.seed), runs[training.name], trust)
    return runs


def _average_all(plan: Plan, runs: Mapping[str, Path], policies: Path) -> dict[str, PolicyCard]:
    """Save each target's policy, the average of those that did not see it, in a folder of its name; their cards."""
    cards = {}
    for source in plan.sources:
        selector, cards[source.name] = _average([runs[name] for name in plan.unseen(source)])
        save_policy(selector, cards[source.name], policies / source.name)
    return cards


def _train(config: TrainConfig, path: Path, trust: bool) -> None:
    """Train, or go on, until the training ends by itself; its time before an interruption counts."""
    run = RunFolder(path)
    if path.exists() and not run.is_run():
        shutil.rmtree(path)  # killed before its settings were written
    with interruptions() as came:
        left = config.minutes - sum(row["seconds"] for row in run.read_history()) / 60
        if not run.is_run():
            train(config, path)
        elif left > 0:
            train(replace(config, minutes=left), path, resume=True, trust=trust)
        if came():
            raise KeyboardInterrupt
    (path / FINISHED).touch()


def _average(runs: Sequence[Path]) -> tuple[Selector, PolicyCard]:
    return average_policies(runs) if len(runs) > 1 else load_policy(runs[0])
