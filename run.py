"""The command line of RL-MBA: train a selection policy, average policies, compare strategies."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envs.errors import RLMBAError

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
  python run.py compare --dataset emoji,watch,digits --strategies all --policy runs/a --policy runs/b --out runs/all"""


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
    commands = parser.add_subparsers(title="commands", required=True, metavar="{train,average,compare}")
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
        "synthetic-family[:...]: another random pool in every generation (evolution only)",
    )
    train.add_argument("--algorithm", metavar="NAME", help="reinforce (default) or evolution")
    train.add_argument(
        "--out", required=True, metavar="DIR", help="run folder: settings, policy, checkpoints, TensorBoard"
    )
    train.add_argument("--preset", metavar="NAME", help="default, or paper: RL-MBA as published")
    train.add_argument("--minutes", type=float, metavar="M", help="stop after the iteration in which they run out (10)")
    train.add_argument("--seed", type=int, metavar="S", help="decides starts and draws (0)")
    train.add_argument("--num-env-runners", type=int, metavar="N", help="processes that play episodes (2)")
    train.add_argument("--num-gpus-per-env-runner", type=float, metavar="G", help="GPU share of each (0)")
    _add_settings(train, "YAML file of settings", "learner.copies=8")
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
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
        help="run or policy folder; the first is called 'learned'; {dataset} stands for each data set; repeatable",
    )
    compare.add_argument("--seeds", type=int, metavar="N", help="paired repetitions (20)")
    compare.add_argument("--out", required=True, metavar="DIR", help="folder for the report and what it rests on")
    compare.add_argument(
        "--strategies", metavar="A,B,...|all", help="default: random,margin,entropy,badge,hand_tuned; all: every one"
    )
    compare.add_argument("--workers", type=int, metavar="N", help="processes (2)")
    _add_settings(compare, "YAML file with the sections protocol and model", "protocol.rounds=5")
    compare.set_defaults(run=_compare)
    return parser


def _add_settings(command: argparse.ArgumentParser, file: str, example: str) -> None:
    command.add_argument("--config", metavar="FILE", help=file)
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help=f"one setting, as in {example}; repeatable"
    )


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
    policy = train(build(TrainConfig, settings), args.out, resume=args.resume)
    run = Path(args.out)
    print(f"policy          {policy}")
    print(f"learning curve  {run / 'learning_curve.png'}")
    print(f"TensorBoard     tensorboard --logdir {run / 'tensorboard'}")
    return 0


def _average(args: argparse.Namespace) -> int:
    from envs.errors import PolicyError
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
    from evaluation.report import text_table
    from learners.settings import build, merge, parse_overrides, read_yaml

    settings = read_yaml(args.config) if args.config else {}
    settings = merge(settings, parse_overrides(args.set))
    flags = {
        "datasets": split_names(args.dataset),
        "seeds": args.seeds,
        "strategies": [name.strip() for name in args.strategies.split(",")] if args.strategies else None,
        "policies": _named_policies(args.policy),
        "workers": args.workers,
    }
    settings = merge(settings, {k: v for k, v in flags.items() if v is not None})
    config = build(CompareConfig, settings)
    try:
        summary = compare(config, args.out)
    except KeyboardInterrupt:
        print("\ninterrupted; finished work is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    out = Path(args.out)
    print(text_table(summary))
    print()
    for what, name in (("report", "report.html"), ("tables", "table.md"), ("pictures", "pictures")):
        print(f"{what:15s} {out / name}")
    print(f"raw rounds      {out / 'rounds.parquet'}")
    print(f"TensorBoard     tensorboard --logdir {out / 'tensorboard'}")
    return 0


def _named_policies(given: list[str]) -> list[tuple[str, str]]:
    """("learned", path) for the first policy without a name, the folder's name for later ones."""
    named = []
    for number, text in enumerate(given):
        name, equals, path = text.partition("=")
        if not equals or "/" in name:
            name, path = "learned" if number == 0 else Path(text).resolve().name, text
        named.append((name, path))
    return named


if __name__ == "__main__":
    sys.exit(main())
