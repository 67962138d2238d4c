"""The command line of RL-MBA: train selection policies, compare strategies, ask what to label next."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import evaluation.commands
import labelling.commands
import learners.commands
from envs.errors import RLMBAError
from envs.flags import CommandParser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # what settings name as module:name; Ray adds it to its workers' path itself
    try:
        return args.run(args)
    except RLMBAError as error:
        if os.environ.get("RL_MBA_DEBUG"):  # where an error came from, and what a library said
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = str(error.filename or "a path")
        shown = name if len(name) < 100 else f"{name[:60]}...{name[-20:]}"
        print(f"error: {shown} is too long a name for this file system; choose a shorter one.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130


def _parser() -> CommandParser:
    name = Path(sys.argv[0]).stem
    parser = CommandParser(prog=name if name == "rl-mba" else "run.py", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for room in (learners, evaluation, labelling):
        room.commands.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
