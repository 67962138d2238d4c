"""The command line of RL-MBA: train selection policies, compare strategies, ask what to label next."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from envs.errors import ConfigError, PolicyError, RLMBAError
from labelling.commands import add_commands as add_labelling_commands

TRAIN_NOTES = """\
settings, lowest first: the dataclasses of learners/settings.py, --preset, --config, --set, the flags above.
examples:
  python run.py train --dataset emoji --out runs/emoji --minutes 5
  python run.py train --dataset my_pool.npz --out runs/mine --set reward.weakest_modality=0.3
  python run.py train --algorithm evolution --dataset emoji,digits,synthetic-family --out runs/many --minutes 20
  python run.py train --out runs/emoji --resume"""
AVERAGE_NOTES = """\
example:
  python run.py average --policies runs/seed0,runs/seed1,runs/seed2 --out runs/averaged"""
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
there; --seeds and --strategies may grow, whatever else decides the policies must stay.
examples:
  python run.py leave-one-out --dataset emoji,watch,digits,synthetic-family --minutes 10 --out runs/left
  python run.py leave-one-out --dataset emoji,watch,digits,a.npz,b.npz --splits 5 --minutes 20 --out runs/crossed"""

TUNE_NOTES = """\
examples:
  python run.py tune --config tune_configs/balance.yaml --dataset emoji --out runs/balance
  python run.py tune --out runs/balance --resume
  python run.py train --config runs/balance/chosen.yaml --out runs/emoji"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        return args.run(args)
    except RLMBAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter

    train = commands.add_parser(
        "train", help="train a selection policy by reinforcement learning", epilog=TRAIN_NOTES, formatter_class=raw,
        description="Train a selection policy on simulated labelling of one or more labelled data sets.",
        allow_abbrev=False,
    )  # fmt: skip
    train.add_argument(
        "--dataset",
        metavar="NAME|PATH[,...]",
        help="emoji, watch, digits, synthetic[:...], a pool folder or .npz; "
        "synthetic-family[:...]: another random pool again and again",
    )
    train.add_argument("--algorithm", metavar="NAME", help="reinforce (default), ppo, appo or evolution")
    train.add_argument(
        "--out", required=True, metavar="DIR", help="run folder: settings, policy, checkpoints, TensorBoard"
    )
    train.add_argument("--preset", metavar="NAME", help="default, or paper: RL-MBA as published")
    train.add_argument("--minutes", type=float, metavar="M", help="stop after the iteration in which they run out (10)")
    train.add_argument("--seed", type=int, metavar="S", help="decides starts and draws (0)")
    train.add_argument("--num-env-runners", type=int, metavar="N", help="processes that play episodes (2)")
    train.add_argument("--num-gpus-per-env-runner", type=float, metavar="G", help="GPU share of each (0)")
    _add_settings(train, "YAML file of settings", "learner.copies=8")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out, or --storage")
    _add_storage(train)
    train.set_defaults(run=_train)

    average = commands.add_parser(
        "average", help="make one policy of several", epilog=AVERAGE_NOTES, formatter_class=raw,
        description="Average the unit-norm weights of linear policies, of several training seeds or data sets.",
        allow_abbrev=False,
    )  # fmt: skip
    average.add_argument("--policies", required=True, metavar="DIR|FILE,...", help="run or policy folders; at least 2")
    average.add_argument("--out", required=True, metavar="DIR", help="folder for the policy's two files")
    average.set_defaults(run=_average)

    compare = commands.add_parser(
        "compare", help="compare strategies on rows that training never saw", epilog=COMPARE_NOTES, formatter_class=raw,
        description="Play strategies against each other, paired by seed, and write a report with tables and pictures.",
        allow_abbrev=False,
    )  # fmt: skip
    compare.add_argument("--dataset", required=True, metavar="NAME|PATH[,...]", help="as for train")
    compare.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="[NAME=]DIR|FILE",
        help="run or policy folder; the first is called 'learned'; {dataset} stands for each data set; repeatable. "
        "Default: the policy that comes with this package; none: strategies only",
    )
    compare.add_argument("--seeds", type=int, metavar="N", help="paired repetitions (20)")
    compare.add_argument("--out", required=True, metavar="DIR", help="folder for the report and what it rests on")
    compare.add_argument(
        "--strategies", metavar="A,B,...|all", help="default: random,margin,entropy,badge,hand_tuned; all: every one"
    )
    compare.add_argument("--workers", type=int, metavar="N", help="processes (2)")
    _add_settings(compare, "YAML file with the sections protocol and model", "protocol.rounds=5")
    compare.set_defaults(run=_compare)
    _add_leave_one_out(commands)
    _add_tune(commands)
    add_labelling_commands(commands)
    return parser


def _add_leave_one_out(commands: Any) -> None:
    command = commands.add_parser(
        "leave-one-out", help="what policies are worth on data that they never saw", epilog=LEAVE_ONE_OUT_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        description="Train policies on some of the data sets, compare them on each that was left out, and average all.",
    )  # fmt: skip
    command.add_argument("--dataset", required=True, metavar="NAME|PATH,...", help="as for train; at least 3")
    command.add_argument(
        "--out", required=True, metavar="DIR", help="folder for trainings, policies, comparison, leave_one_out.md"
    )
    command.add_argument("--minutes", type=float, metavar="M", help="of each training (10)")
    command.add_argument("--training-seeds", type=int, metavar="N", help="trainings per target, averaged (2)")
    command.add_argument(
        "--splits",
        type=int,
        metavar="R",
        help="train on R random pairs of complementary halves instead, 2R trainings in all; a target's policy averages "
        "the R that did not see it",
    )
    command.add_argument("--seeds", type=int, metavar="N", help="paired repetitions of the comparison (20)")
    command.add_argument(
        "--strategies", metavar="A,B,...|all", help="to compare with: random,margin,badge,bmmal,hand_tuned"
    )
    command.add_argument("--seed", type=int, metavar="S", help="decides trainings and halves (0)")
    command.add_argument("--num-env-runners", type=int, metavar="N", help="processes (2)")
    _add_settings(command, "YAML file of training settings", "evolution.vary_protocol=true")
    command.set_defaults(run=_leave_one_out)


def _add_tune(commands: Any) -> None:
    command = commands.add_parser(
        "tune", help="search settings of training, such as reward weights", epilog=TUNE_NOTES, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train many policies with different settings, and show which no other one beats.",
    )  # fmt: skip
    command.add_argument("--config", metavar="FILE", help="what to search, as in tune_configs/")
    command.add_argument("--dataset", metavar="NAME|PATH[,...]", help="as for train")
    command.add_argument("--out", required=True, metavar="DIR", help="folder for trials, table, picture, chosen.yaml")
    command.add_argument("--trials", type=int, metavar="N", help="in place of the file's")
    command.add_argument("--concurrent", type=int, metavar="N", help="trials side by side, in place of the file's")
    command.add_argument("--seed", type=int, metavar="S", help="decides what is tried (0)")
    command.add_argument(
        "--resume", action="store_true", help="go on with the interrupted sweep in --out, or --storage"
    )
    _add_storage(command)
    command.set_defaults(run=_tune)


def _add_settings(command: argparse.ArgumentParser, file: str, example: str) -> None:
    command.add_argument("--config", metavar="FILE", help=file)
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help=f"one setting, as in {example}; repeatable"
    )


def _add_storage(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--storage",
        metavar="DIR|URL",
        help="keep a copy of --out in this shared folder or bucket (s3://..., gs://...), under the name of --out",
    )


def _print_copy(args: argparse.Namespace) -> None:
    from learners.storage import place_of

    if args.storage:
        print(f"copy            {place_of(args.storage, args.out)}")


def _train(args: argparse.Namespace) -> int:
    # Imported here: --help and mistakes in a flag should not wait for torch and ray.
    from envs.sources import split_names
    from learners.settings import TrainConfig, build, merge, parse_overrides, read_preset, read_yaml
    from learners.training import train

    settings: dict[str, Any] = read_preset(args.preset) if args.preset else {}
    if args.config:
        settings = merge(settings, read_yaml(args.config))
    settings = merge(settings, parse_overrides(args.set))
    flags = {
        "datasets": split_names(args.dataset) if args.dataset else None,
        "algorithm": args.algorithm,
        "minutes": args.minutes,
        "seed": args.seed,
    }
    resources = {
        "num_env_runners": args.num_env_runners,
        "num_gpus_per_env_runner": args.num_gpus_per_env_runner,
    }
    settings = merge(settings, {k: v for k, v in flags.items() if v is not None})
    settings = merge(settings, {"resources": {k: v for k, v in resources.items() if v is not None}})
    policy = train(build(TrainConfig, settings), args.out, resume=args.resume, storage=args.storage)
    run = Path(args.out)
    print(f"policy          {policy}")
    print(f"learning curve  {run / 'learning_curve.png'}")
    print(f"TensorBoard     tensorboard --logdir {run / 'tensorboard'}")
    _print_copy(args)
    return 0


def _average(args: argparse.Namespace) -> int:
    from policies.averaging import average_policies
    from policies.selector import save_policy

    selector, card = average_policies([path.strip() for path in args.policies.split(",") if path.strip()])
    try:
        folder = save_policy(selector, card, args.out)
    except OSError as error:
        raise PolicyError(f"Cannot write into {args.out}: {error.strerror}; choose another --out.") from None
    print(f"policy          {folder}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from envs.sources import split_names
    from evaluation.comparison import CompareConfig, compare
    from evaluation.report.write import text_table
    from learners.settings import build, merge, parse_overrides, read_yaml

    settings = read_yaml(args.config) if args.config else {}
    settings = merge(settings, parse_overrides(args.set))
    flags = {
        "datasets": split_names(args.dataset),
        "seeds": args.seeds,
        "strategies": _names(args.strategies),
        "policies": _named_policies(args.policy) if args.policy else None,
        "workers": args.workers,
    }
    settings = merge(settings, {k: v for k, v in flags.items() if v is not None})
    config = build(CompareConfig, settings)
    if "policies" not in settings:
        config = replace(config, policies=(("learned", str(_pretrained())),))
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
    from envs.sources import split_names
    from evaluation.leave_one_out.run import LeaveOneOutConfig, leave_one_out
    from evaluation.leave_one_out.table import text
    from learners.settings import TrainConfig, build, merge, parse_overrides, read_yaml

    if args.splits and args.training_seeds:
        raise ConfigError("--training-seeds counts trainings without --splits; give one of the two.")
    training: dict[str, Any] = {"algorithm": "evolution"}
    if args.config:
        training = merge(training, read_yaml(args.config))
    training = merge(training, parse_overrides(args.set))
    flags = {"datasets": split_names(args.dataset), "minutes": args.minutes, "seed": args.seed}
    training = merge(training, {k: v for k, v in flags.items() if v is not None})
    if args.num_env_runners is not None:
        training = merge(training, {"resources": {"num_env_runners": args.num_env_runners}})
    further = {
        "training_seeds": args.training_seeds,
        "splits": args.splits,
        "seeds": args.seeds,
        "strategies": _names(args.strategies),
    }
    chosen = {k: v for k, v in further.items() if v is not None}
    try:
        result = leave_one_out(LeaveOneOutConfig(build(TrainConfig, training), **chosen), args.out)
    except KeyboardInterrupt:
        return _interrupted()
    out = Path(args.out)
    print(text(result))
    print()
    for what, name in (
        ("tables", "leave_one_out.md"),
        ("report", "comparison/report.html"),
        ("policies", "policies"),
        ("of all sources", "policy"),
    ):
        print(f"{what:15s} {out / name}")
    return 0


def _tune(args: argparse.Namespace) -> int:
    from envs.sources import split_names
    from learners.settings import build, merge, read_yaml
    from learners.sweeps.config import SweepConfig

    if not args.config and not args.resume:
        raise ConfigError("Give --config, such as tune_configs/balance.yaml, or --resume.")
    config = None
    if not args.resume:
        settings = read_yaml(args.config)
        flags = {"trials": args.trials, "concurrent": args.concurrent, "seed": args.seed}
        settings = merge(settings, {k: v for k, v in flags.items() if v is not None})
        if args.dataset:
            settings = merge(settings, {"train": {"datasets": split_names(args.dataset)}})
        config = build(SweepConfig, settings)
    from learners.sweeps.search import sweep

    sweep(config, args.out, resume=args.resume, storage=args.storage)
    out = Path(args.out)
    print((out / "table.md").read_text(encoding="utf-8"))
    for what, name in (("front", "pareto.json"), ("picture", "pareto.png"), ("chosen", "chosen.yaml")):
        print(f"{what:15s} {out / name}")
    print(f"TensorBoard     tensorboard --logdir {out / 'trials'}")
    _print_copy(args)
    return 0


def _interrupted() -> int:
    print("\ninterrupted; finished work is kept, and the same command goes on from there", file=sys.stderr)
    return 130


def _names(given: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in given.split(",")) if given else None


def _pretrained() -> Path:
    from policies.selector import pretrained_policy

    try:
        return pretrained_policy()
    except PolicyError as error:
        raise PolicyError(f"{error} --policy DIR names one; --policy none compares strategies only.") from None


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


if __name__ == "__main__":
    sys.exit(main())
