"""The commands that measure policies: compare, leave-one-out."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from envs.errors import ConfigError, PolicyError
from envs.flags import given, split_list

COMPARE_NOTES = """\
Finished work is kept in --out/results. The same command after an interruption goes on from there, and one with more
data sets, strategies, policies or seeds computes what is missing.
examples:
  python run.py compare --dataset emoji --policy runs/emoji --seeds 20 --out runs/emoji/compare
  python run.py compare --dataset my_pool.npz --out runs/mine
  python run.py compare --dataset emoji --policy none --strategies all --out runs/fixed
  python run.py compare --dataset emoji,watch,digits --strategies all --policy runs/a --policy runs/b --out runs/all"""
LEAVE_ONE_OUT_NOTES = """\
Settings, lowest first: the dataclasses of learners/settings.py with evolution as the algorithm, --config, --set, the
flags above. protocol and model hold for training and comparison.
A synthetic-family that is left out is compared on one pool of it, always the same.
Finished trainings and chunks of the comparison are kept in --out. After an interruption the same command goes on from
there; --seeds, --strategies and --budgets may grow, whatever else decides the policies must stay.
examples:
  python run.py leave-one-out --dataset emoji,watch,digits,synthetic-family --minutes 10 --out runs/left
  python run.py leave-one-out --dataset emoji,watch,digits,a.npz,b.npz --splits 5 --minutes 20 --out runs/crossed \\
      --budgets 20+10x10,100+10x50"""


def add_commands(commands: Any) -> None:
    """Add the subcommands to the parser's."""
    compare = commands.add_parser(
        "compare",
        help="compare strategies on rows that training never saw",
        epilog=COMPARE_NOTES,
        description="Play strategies against each other, paired by seed, and write a report with tables and pictures.",
        settings=_compare_config,
    )
    compare.add_argument("--dataset", required=True, metavar="NAME|PATH[,...]", help="as for train")
    compare.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="[NAME=]DIR|FILE",
        help="run or policy folder; the first is called 'learned'; {dataset} stands for each data set; repeatable. "
        "Default: the policy that comes with this package; none: strategies only",
    )
    compare.add_argument(
        "--without-pretrained",
        action="store_true",
        help="leave out the policy that comes with this package, which otherwise plays beside --policy as 'pretrained'",
    )
    compare.add_field("--seeds", type=int, metavar="N")
    compare.add_argument("--out", required=True, metavar="DIR", help="folder for the report and what it rests on")
    compare.add_field("--strategies", metavar="A,B,...|all")
    compare.add_field("--workers", type=int, metavar="N")
    compare.add_settings("YAML file with the sections protocol and model", "protocol.rounds=5")
    compare.set_defaults(run=_compare)
    _add_leave_one_out(commands)


def _add_leave_one_out(commands: Any) -> None:
    command = commands.add_parser(
        "leave-one-out",
        help="what policies are worth on data that they never saw",
        epilog=LEAVE_ONE_OUT_NOTES,
        description="Train policies on some of the data sets, compare them on each that was left out, and average all.",
        settings=_leave_one_out_config,
    )
    command.add_argument("--dataset", required=True, metavar="NAME|PATH,...", help="as for train; at least 3")
    command.add_argument(
        "--out", required=True, metavar="DIR", help="folder for trainings, policies, comparison, leave_one_out.md"
    )
    command.add_field("--minutes", "training.minutes", "of each training", type=float, metavar="M")
    command.add_field("--training-seeds", type=int, metavar="N")
    command.add_field("--splits", type=int, metavar="R")
    command.add_field("--seeds", type=int, metavar="N")
    command.add_field("--strategies", metavar="A,B,...|all")
    command.add_field("--budgets", metavar="N+RxB,...")
    command.add_field("--seed", "training.seed", "decides trainings and halves", type=int, metavar="S")
    command.add_field("--num-env-runners", "training.resources.num_env_runners", type=int, metavar="N")
    command.add_settings("YAML file of training settings", "evolution.vary_protocol=true")
    command.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="go on with trainings that another user or installation wrote, and run what is in them",
    )
    command.set_defaults(run=_leave_one_out)


# The commands import here and below what they need: --help and mistakes in a flag should not wait for torch and ray.
def _compare_config() -> type:
    from evaluation.comparison import CompareConfig

    return CompareConfig


def _leave_one_out_config() -> type:
    from evaluation.leave_one_out.plan import LeaveOneOutConfig

    return LeaveOneOutConfig


def _compare(args: argparse.Namespace) -> int:
    from envs.sources import split_names
    from evaluation.comparison import CompareConfig, compare
    from evaluation.report.tables import text_table
    from learners.settings import build, merge, parse_overrides, read_yaml

    settings = read_yaml(args.config) if args.config is not None else {}
    settings = merge(settings, parse_overrides(args.set))
    flags = given(
        datasets=split_names(args.dataset),
        seeds=args.seeds,
        strategies=_names(args.strategies),
        policies=_compared_policies(args) if args.policy else None,
        workers=args.workers,
    )
    settings = merge(settings, flags)
    config = build(CompareConfig, settings)
    if "policies" not in settings:
        config = replace(config, policies=(("learned", str(_pretrained("--policy none compares strategies only"))),))
    try:
        summary = compare(config, args.out)
    except KeyboardInterrupt:
        return _interrupted()
    out = Path(args.out)
    print(text_table(summary))
    print()
    for what, name in (("report", "report.html"), ("tables", "table.md"), ("pictures", "pictures")):
        print(f"{what:15s} {out / name}")
    print(f"raw rounds      {out / 'rounds.parquet'}")
    print(f"TensorBoard     tensorboard --logdir {out / 'tensorboard'}")
    return 0


def _leave_one_out(args: argparse.Namespace) -> int:
    if args.splits and args.training_seeds:
        raise ConfigError("--training-seeds counts trainings without --splits; give one of the two.")
    from envs.sources import split_names
    from evaluation.leave_one_out.plan import LeaveOneOutConfig
    from evaluation.leave_one_out.run import leave_one_out
    from evaluation.leave_one_out.table import text
    from learners.settings import TrainConfig, build, merge, parse_overrides, read_yaml

    # The policy that ships has seen data sets that may be left out here.
    start: dict[str, Any] = {"policy": {"initial": "badge"}, "evolution": {"sigma0": 0.5}}
    training: dict[str, Any] = {"algorithm": "evolution"} | start
    if args.config is not None:
        training = merge(training, read_yaml(args.config))
    training = merge(training, parse_overrides(args.set))
    flags = given(datasets=split_names(args.dataset), minutes=args.minutes, seed=args.seed)
    training = merge(training, flags | {"resources": given(num_env_runners=args.num_env_runners)})
    chosen = given(
        training_seeds=args.training_seeds,
        splits=args.splits,
        seeds=args.seeds,
        strategies=_names(args.strategies),
        budgets=_names(args.budgets),
    )
    try:
        result = leave_one_out(
            LeaveOneOutConfig(build(TrainConfig, training), **chosen), args.out, trust=args.trust_checkpoint
        )
    except KeyboardInterrupt:
        return _interrupted()
    out = Path(args.out)
    print(text(result))
    print()
    for what, name in (
        ("tables", "leave_one_out.md"),
        *((f"report {name}", f"comparison/{name}/report.html") for name in result.budgets),
        ("policies", "policies"),
        ("of all sources", "policy"),
    ):
        print(f"{what:15s} {out / name}")
    return 0


def _interrupted() -> int:
    print("\ninterrupted; finished work is kept, and the same command goes on from there", file=sys.stderr)
    return 130


def _names(given: str | None) -> tuple[str, ...] | None:
    return split_list(given) if given is not None else None


def _pretrained(otherwise: str) -> Path:
    from policies.policy_file import pretrained_policy

    try:
        return pretrained_policy()
    except PolicyError as error:
        raise PolicyError(f"{error} --policy DIR names one; {otherwise}.") from None


def _compared_policies(args: argparse.Namespace) -> list[tuple[str, str]]:
    """The policies that --policy names, and the one that ships where it is none of them."""
    from evaluation.summary import PRETRAINED
    from policies.policy_file import same_weights

    named = _named_policies(args.policy)
    if args.without_pretrained or not named or any(name == PRETRAINED for name, _ in named):
        return named
    pretrained = _pretrained("--without-pretrained leaves it out")
    # Where a path has a place for each data set's name, no one policy is meant.
    if any("{dataset}" not in path and same_weights(path, pretrained) for _, path in named):
        return named
    return [*named, (PRETRAINED, str(pretrained))]


def _named_policies(given: list[str]) -> list[tuple[str, str]]:
    """("learned", path) for the first policy without a name, the folder's name for later ones; nothing for "none"."""
    if "none" in given:
        if len(given) > 1:
            raise ConfigError(
                "'none' stands for no policy; give it alone, or policies without it (./none for a folder)."
            )
        return []
    named = []
    for number, text in enumerate(given):
        name, equals, path = text.partition("=")
        if not equals or "/" in name:
            name, path = "learned" if number == 0 else Path(text).resolve().name, text
        named.append((name, path))
    return named
