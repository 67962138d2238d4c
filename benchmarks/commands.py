"""Commands of run.py, as a user would type them."""

from __future__ import annotations

import subprocess
import sys


def run(*arguments: str) -> None:
    """Run one command of run.py; the command and its output go to standard error."""
    print("python run.py " + " ".join(arguments), file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "run.py", *arguments], check=True, stdout=sys.stderr)
