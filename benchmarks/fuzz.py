"""Damages the valid files of every reader at random and judges what becomes of it; `make fuzz`.

Each file may be read as what it was, or as something else that it may well be (a changed text is a text), or be
refused by an error of ours that names it. Anything else is a fault: another exception, much memory, much time.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.mutations import damaged
from benchmarks.readers import Reader, digest, readers
from envs.errors import RLMBAError

SECONDS = 5.0  # of CPU for one file
MEGABYTES = 700  # that one file may add
LONGEST_MESSAGE = 2000
CHUNK = 100  # cases of one process
ROOT = Path(__file__).parents[1]
REFUSED, SAME, OTHER = "refused", "the same", "another content"
_OWN = (TypeError, AttributeError, IndexError, AssertionError)  # of our own code: what the guard alone has caught


class TooLong(BaseException):
    """Raised by the alarm, past every guard."""


def cases(name: str, reader: Reader, seed: int, numbers: range) -> Iterator[tuple[str, str, bytes]]:
    """(description, file, damaged content) of these cases; each depends on seed, reader and number alone."""
    files = sorted(str(path.relative_to(reader.files)) for path in reader.files.rglob("*") if path.is_file())
    files = [file for file in files if any(fnmatch.fnmatch(file, pattern) for pattern in reader.damage)]
    for number in numbers:
        rng = random.Random(f"{seed}/{name}/{number}")
        file = rng.choice(files)
        content = damaged(rng, file, (reader.files / file).read_bytes())
        yield f"{name}, seed {seed}, case {number} ({file})", file, content


def judge(reader: Reader, folder: Path, file: str, content: bytes, valid: str) -> tuple[str, str]:
    """What became of one damaged file, and in words how; `valid` is the digest of what the valid files hold."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(reader.files, folder)
    (folder / file).write_bytes(content)
    before = _peak()
    signal.signal(signal.SIGPROF, _alarm)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        outcome = SAME if digest(reader.read(folder), folder) == valid else OTHER, ""
    except RLMBAError as error:
        outcome = _refusal(error, folder if reader.named else "")
    except TooLong as error:
        outcome = f"more than {SECONDS:g} s", _frame(error)
    except BaseException as error:
        outcome = f"{type(error).__name__}", f"{_frame(error)}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if _peak() - before > MEGABYTES * 2**20:
        return f"more than {MEGABYTES} MB", f"{outcome[0]} {outcome[1]}"
    return outcome


def _refusal(error: RLMBAError, folder: Path | str) -> tuple[str, str]:
    text = str(error)
    if str(folder) not in text:
        return "refused without the file's name", text[:300]
    if len(text) > LONGEST_MESSAGE or "\n" in text:
        return "refused in a long message", text[:300]
    cause = error.__cause__
    own = isinstance(cause, _OWN) and str(ROOT) in traceback.extract_tb(cause.__traceback__)[-1].filename
    return REFUSED, f"by the guard alone: {type(cause).__name__} at {_frame(cause)}" if cause and own else ""


def _frame(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(ROOT))]
    return f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "?"


def _alarm(*_: Any) -> None:
    raise TooLong


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(name: str, reader: Reader, seed: int, numbers: range) -> list[tuple[str, str, str]]:
    """(description, outcome, words) of each case, read in this process."""
    valid = digest_of_valid(reader)
    with tempfile.TemporaryDirectory() as place:
        return [
            (what, *judge(reader, Path(place) / "files", file, content, valid))
            for what, file, content in cases(name, reader, seed, numbers)
        ]


def digest_of_valid(reader: Reader) -> str:
    """Digest of what the valid files hold."""
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(reader.files, Path(place) / "files")
        return digest(reader.read(Path(place) / "files"), Path(place) / "files")


def _run_apart(job: tuple[str, Reader, int, range]) -> list[tuple[str, str, str]]:
    """`run` in a process of its own with bounded memory; what dies or hangs in a library counts as one fault."""
    name, _, seed, numbers = job
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, job))
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(60 + 2 * SECONDS * len(numbers)) else None
    except EOFError:
        found = None
    process.kill()
    process.join()
    return found or [(f"{name}, seed {seed}, cases {numbers}", "the process died or hung", "")]


def _child(pipe: Any, job: tuple[str, Reader, int, range]) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 4 * 2**30,) * 2)
    pipe.send(run(*job))


def main() -> int:
    """Command line; the exit status says whether there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="damaged files in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reader", action="append", help="only these readers")
    parser.add_argument("--out", type=Path, help="every case that was not simply refused, as JSON lines")
    args = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        known = {k: r for k, r in readers(Path(place)).items() if not args.reader or k in args.reader}
        each = args.cases // len(known)
        jobs = [
            (name, reader, args.seed, range(low, min(low + CHUNK, each)))
            for name, reader in known.items()
            for low in range(0, each, CHUNK)
        ]
        with ThreadPoolExecutor(args.workers) as threads:
            found = [case for part in threads.map(_run_apart, jobs) for case in part]
    return _report(found, time.perf_counter() - began, args.out)


def _report(found: list[tuple[str, str, str]], seconds: float, out: Path | None) -> int:
    good = (REFUSED, SAME, OTHER)
    by: dict[str, Counter[str]] = {}
    for what, outcome, _ in found:
        by.setdefault(what.split(", seed")[0], Counter())[outcome if outcome in good else "faults"] += 1
    print(f"| reader | damaged files | {' | '.join(good)} | faults |\n|---|--:|--:|--:|--:|--:|")
    for name, counts in by.items():
        print(f"| {name} | {counts.total()} | {' | '.join(str(counts[k]) for k in (*good, 'faults'))} |")
    faults = [case for case in found if case[1] not in good]
    print(f"\n{len(found)} damaged files in {seconds:.0f} s, {len(faults)} faults.")
    first = {(outcome, words.partition(" ")[0]): what for what, outcome, words in reversed(faults)}
    for (outcome, at), count in Counter((o, words.partition(" ")[0]) for _, o, words in faults).most_common(40):
        print(f"{count:6d} x {outcome} at {at} as in {first[outcome, at]}")
    alone = Counter(words for _, outcome, words in found if outcome == REFUSED and words)
    for words, count in alone.most_common(20):
        print(f"{count:6d} x refused {words}")
    if out:
        out.write_text("".join(json.dumps(case) + "\n" for case in found if case[1] != REFUSED), encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
