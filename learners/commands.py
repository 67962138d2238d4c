"""The commands that make policies: train, average, tune."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from envs.errors import ConfigError, PolicyError
from envs.flags import CommandParser, given, split_list

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
TUNE_NOTES = """\
The flags take the place of what the file says.
examples:
  python run.py tune --config tune_configs/balance.yaml --dataset emoji --out runs/balance
  python run.py tune --out runs/balance --resume
  python run.py train --config runs/balance/chosen.yaml --out runs/emoji"""


def add_commands(commands: Any) -> None:
    """Add the subcommands to the parser's."""
    _add_train(commands)
    average = commands.add_parser(
        "average",
        help="make one policy of several",
        epilog=AVERAGE_NOTES,
        description="Average the unit-norm weights of linear policies, of several training seeds or data sets.",
    )
    average.add_argument("--policies", required=True, metavar="DIR|FILE,...", help="run or policy folders; at least 2")
    average.add_argument("--out", required=True, metavar="DIR", help="folder for the policy's two files")
    average.set_defaults(run=_average)
    _add_tune(commands)


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train a selection policy by reinforcement learning",
        epilog=TRAIN_NOTES,
        description="Train a selection policy on simulated labelling of one or more labelled data sets.",
        settings=_train_config,
    )
    train.add_argument(
        "--dataset",
        metavar="NAME|PATH[,...]",
        help="emoji, watch, digits, synthetic[:...], a pool folder or .npz ('\"a, b.npz\"' where it holds a comma); "
        "synthetic-family[:...]: another random pool again and again",
    )
    train.add_field("--algorithm", metavar="NAME")
    train.add_argument(
        "--out", required=True, metavar="DIR", help="run folder: settings, policy, checkpoints, TensorBoard"
    )
    train.add_argument("--preset", metavar="NAME", help="default, or paper: RL-MBA as published")
    train.add_field("--minutes", type=float, metavar="M")
    train.add_field("--seed", type=int, metavar="S")
    train.add_field("--num-env-runners", "resources.num_env_runners", type=int, metavar="N")
    train.add_field("--num-gpus-per-env-runner", "resources.num_gpus_per_env_runner", type=float, metavar="G")
    train.add_settings("YAML file of settings", "learner.copies=8")
    train.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last checkpoint in --out, or --storage; what else is given must be as there, but for "
        "time, processes and iterations",
    )
    _add_resuming(train)
    train.set_defaults(run=_train)


def _add_tune(commands: Any) -> None:
    tune = commands.add_parser(
        "tune",
        help="search settings of training, such as reward weights",
        epilog=TUNE_NOTES,
        description="Train many policies with different settings, and show which no other one beats.",
        settings=_sweep_config,
    )
    tune.add_argument("--config", metavar="FILE", help="what to search, as in tune_configs/")
    tune.add_argument("--dataset", metavar="NAME|PATH[,...]", help="as for train")
    tune.add_argument("--out", required=True, metavar="DIR", help="folder for trials, table, picture, chosen.yaml")
    tune.add_field("--trials", type=int, metavar="N")
    tune.add_field("--concurrent", type=int, metavar="N")
    tune.add_field("--seed", type=int, metavar="S")
    tune.add_argument(
        "--resume",
        action="store_true",
        help="go on with the interrupted sweep in --out, or --storage; what else is given must be as there",
    )
    _add_resuming(tune)
    tune.set_defaults(run=_tune)


def _add_resuming(command: CommandParser) -> None:
    command.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="with --resume: take a folder that another user or installation wrote, and run what is in it",
    )
    command.add_argument(
        "--storage",
        metavar="DIR|URL",
        help="keep a copy of --out in this shared folder or bucket (s3://..., gs://...), under the name of --out",
    )


# The commands import here and below what they need: --help and mistakes in a flag should not wait for torch and ray.
def _train_config() -> type:
    from learners.settings import TrainConfig

    return TrainConfig


def _sweep_config() -> type:
    from learners.sweeps.config import SweepConfig

    return SweepConfig


def _train(args: argparse.Namespace) -> int:
    from envs.sources import split_names
    from learners.settings import TrainConfig, build, merge, parse_overrides, read_yaml
    from learners.training import go_on, train

    settings = read_yaml(args.config) if args.config is not None else {}
    settings = merge(settings, parse_overrides(args.set))
    flags = given(
        datasets=split_names(args.dataset) if args.dataset is not None else None,
        preset=args.preset,
        algorithm=args.algorithm,
        minutes=args.minutes,
        seed=args.seed,
    )
    resources = given(
        num_env_runners=args.num_env_runners,
        num_gpus_per_env_runner=args.num_gpus_per_env_runner,
    )
    settings = merge(settings, flags | {"resources": resources})
    trust = _trust(args)
    if args.resume:
        policy = go_on(args.out, settings, args.storage, trust)
    else:
        policy = train(build(TrainConfig, settings), args.out, storage=args.storage)
    run = Path(args.out)
    print(f"policy          {policy}")
    print(f"learning curve  {run / 'learning_curve.png'}")
    print(f"TensorBoard     tensorboard --logdir {run / 'tensorboard'}")
    _print_copy(args)
    return 0


def _average(args: argparse.Namespace) -> int:
    from policies.averaging import average_policies
    from policies.policy_file import save_policy

    selector, card = average_policies(split_list(args.policies))
    try:
        folder = save_policy(selector, card, args.out)
    except OSError as error:
        raise PolicyError(f"Cannot write into {args.out}: {error.strerror}; choose another --out.") from None
    print(f"policy          {folder}")
    return 0


def _tune(args: argparse.Namespace) -> int:
    if args.config is None and not args.resume:
        raise ConfigError("Give --config, such as tune_configs/balance.yaml, or --resume.")
    from envs.sources import split_names
    from learners.settings import build, merge, read_yaml
    from learners.sweeps.config import SweepConfig

    settings = read_yaml(args.config) if args.config is not None else {}
    settings = merge(settings, given(trials=args.trials, concurrent=args.concurrent, seed=args.seed))
    if args.dataset is not None:
        settings = merge(settings, {"train": {"datasets": split_names(args.dataset)}})
    config = None if args.resume else build(SweepConfig, settings)
    from learners.sweeps.search import sweep

    sweep(config, args.out, args.resume, args.storage, settings, _trust(args))
    out = Path(args.out)
    print((out / "table.md").read_text(encoding="utf-8"))
    for what, name in (("front", "pareto.json"), ("picture", "pareto.png"), ("chosen", "chosen.yaml")):
        print(f"{what:15s} {out / name}")
    print(f"TensorBoard     tensorboard --logdir {out / 'trials'}")
    _print_copy(args)
    return 0


def _trust(args: argparse.Namespace) -> bool:
    if args.trust_checkpoint and not args.resume:
        raise ConfigError("--trust-checkpoint is for --resume: a new run reads nothing that somebody else wrote.")
    return args.trust_checkpoint


def _print_copy(args: argparse.Namespace) -> None:
    from learners.storage import place_of

    if args.storage:
        print(f"copy            {place_of(args.storage, args.out)}")
