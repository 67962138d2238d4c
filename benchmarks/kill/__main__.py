"""1,000 deaths over all labelling commands, and what they did to what people had been told; some of other commands.

    python -m benchmarks.kill [--deaths 1000] [--failures 300] [--cuts 100] [--long 40] [--seed 0]

Exit status 1 where anything acknowledged was lost, became something else, or a traceback was shown.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.kill import faults
from benchmarks.kill.commands import Running, preload
from benchmarks.kill.found import Faults
from benchmarks.kill.longer import MOMENT, STEP, SYNC, WAYS, LongRuns
from benchmarks.kill.power import Disk, small_disk
from benchmarks.kill.session import Session

S = TypeVar("S", Session, LongRuns)
DISK_MEGABYTES = 12
# What most runs of a command have at least: steps in the file system, fsyncs, bytes of a line.
STEPS = {"ask": 20, "tell": 20, "undo": 8, "export": 25, "status": 12, "init": 30}
SYNCS = {"ask": 4, "tell": 2, "undo": 1, "export": 8, "status": 1, "init": 14}
_LINE = {"ask": 300, "tell": 250, "undo": 80}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deaths", type=int, default=1000, help="of processes (%(default)s)")
    parser.add_argument("--failures", type=int, default=300, help="full disks and I/O errors (%(default)s)")
    parser.add_argument("--cuts", type=int, default=100, help="of power, where this user may mount (%(default)s)")
    parser.add_argument("--long", type=int, default=40, help="deaths of train, compare and tune (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.perf_counter()
    totals = Faults()
    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        aside = Path(folder)
        os.environ |= {"RL_MBA_CACHE": str(aside / "cache"), "XDG_CONFIG_HOME": str(aside / "config")}
        preload(aside)
        with small_disk(aside / "small", DISK_MEGABYTES) as own:
            session = Session(aside / "small", aside, random.Random(args.seed))
            _until(args.deaths, "deaths", session, _death, began)
            failure = _failure if own else _failure_without_a_disk
            _until(args.failures, "failures", session, failure, began)
            totals.update(session.faults)
        disk = Disk(aside)
        with disk.mounted() as there:
            if there and args.cuts:
                session = Session(disk.place, aside, random.Random(args.seed))
                _until(args.cuts, "power cuts", session, lambda s, command: _cut(disk, s, command), began)
                totals.update(session.faults)
            elif args.cuts:
                print("power cuts      none: this user may not mount a disk")
        (aside / "long").mkdir()
        runs = LongRuns(aside / "long", random.Random(args.seed))
        _until(args.long, "deaths of long", runs, LongRuns.death, began)
        runs.end()
        totals.update(runs.faults)
    print(f"{totals}, {time.perf_counter() - began:.0f} s")
    return 1 if totals else 0


def _until(count: int, noun: str, session: S, trial: Callable[[S, str], str], began: float) -> None:
    """Trials of all commands until as many of them did what they are for."""
    found: Counter[str] = Counter()
    trials = 0
    while found.total() < count and trials < 20 * count:
        command = session.next()
        way = trial(session, command)
        trials += 1
        if way:
            found[f"{command}: {way}"] += 1
            if found.total() % 100 == 0 or found.total() == count:
                print(f"{noun:15s} {found.total()} ({time.perf_counter() - began:.0f} s; {session.faults})", flush=True)
    by_command, by_way = Counter[str](), Counter[str]()
    for name, number in found.items():
        command, _, way = name.partition(": ")
        by_command[command] += number
        by_way[way] += number
    for title, counts in (("by command", by_command), ("by way", by_way), ("also", session.tally)):
        print(f"  {title:13s} " + ", ".join(f"{name} {number}" for name, number in counts.most_common()))


def _death(session: Session, command: str) -> str:
    """How the command died; empty where it came to its end before."""
    rng, fault, wait = session.rng, None, None
    arguments, after = session.prepare(command)
    way = rng.choice(WAYS)
    if way == MOMENT:
        wait = rng.uniform(0, 1.2 * session.seconds[command])
    elif way == STEP:
        fault = faults.at_step(session.place, rng.randint(1, STEPS[command]))
    elif way == SYNC:
        fault = faults.at_sync(rng.randint(1, SYNCS[command]), rng.random() < 0.5)
    else:
        fault = faults.within_write(_limit(session, command))
    process = Running([arguments], fault)
    if wait is not None:
        time.sleep(wait)
        process.kill()
    outcome = process.end()
    session.judge(command, outcome, after)
    return way if outcome.status in (-signal.SIGKILL, -signal.SIGXFSZ) else ""


def _limit(session: Session, command: str) -> int:
    """A size of file that some write of the command outgrows."""
    if command in ("ask", "tell", "undo"):
        return (session.project / "journal.jsonl").stat().st_size + session.rng.randint(0, _LINE[command])
    return session.rng.randint(0, 4000)


def _failure(session: Session, command: str) -> str:
    """How the command failed; empty where nothing hindered it."""
    if session.rng.random() < 0.5:
        return _failure_without_a_disk(session, command)
    arguments, after = session.prepare(command)
    with faults.FullDisk(session.place, session.rng.choice([0, 1, 4096, 8192, 20000, 60000])):
        outcome = Running([arguments]).end()
    session.judge(command, outcome, after)
    return "full disk" if outcome.status == 2 else ""


def _failure_without_a_disk(session: Session, command: str) -> str:
    arguments, after = session.prepare(command)
    if session.rng.random() < 0.5:
        way, fault = "small files", faults.small_files(_limit(session, command))
    else:
        way, fault = "I/O error", faults.some_io_error(session.rng)
    outcome = Running([arguments], fault).end()
    session.judge(command, outcome, after)
    return way if outcome.status == 2 else ""


def _cut(disk: Disk, session: Session, command: str) -> str:
    """Cut the power while a command runs, or right after it: the command stops, and the disk is what it was then."""
    arguments, after = session.prepare(command)
    ledger, exported = session.ledger, session.exported
    process = Running([arguments])
    time.sleep(session.rng.uniform(0, 1.5 * session.seconds[command]))
    os.kill(process.pid, signal.SIGSTOP)
    with disk.cut() as there:
        process.kill()
        outcome = process.end()
        if not there:
            session.faults.add("other", "the disk after a power cut is no file system")
        else:
            session.judge(command, outcome, after, disk.after)
    session.ledger, session.exported = ledger, exported
    session.judge(command, outcome, after)
    return "in it" if outcome.died else "after it"


if __name__ == "__main__":
    sys.exit(main())
