"""The harness that kills: its ledger, and that it notices what is lost."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill.commands import preload, run
from benchmarks.kill.ledger import Ledger, majority, samples_of, seen_in
from benchmarks.kill.longer import LongRuns, difference
from benchmarks.kill.session import Session
from benchmarks.kill.whole import halves
from tests.support.paths import ROOT


def test_the_ledger_follows_answers_and_undos() -> None:
    begun = Ledger()
    asked = begun.asked(("a", "b"))
    assert asked.waits and asked.asked() is asked
    told = asked.told({("a", "ann"): "x"})
    assert not told.waits and told.told({("a", "ann"): "x"}) is told
    corrected = told.told({("a", "ann"): "skip"})
    again = corrected.asked(("c",))
    assert again.batches == 2 and again.waits
    assert again.undone().undone() is told and told.undone().undone() is begun and begun.undone() is begun
    assert told.same(Ledger({("a", "ann"): "x"}, 1)) and not told.same(Ledger({("a", "ann"): "x"}, 2))


@pytest.mark.parametrize(
    "labels, expected", [([], ""), (["skip"], ""), (["a", "b"], ""), (["a", "b", "a"], "a"), (["skip", "b"], "b")]
)
def test_majority(labels: list[str], expected: str) -> None:
    assert majority(labels) == expected


def test_what_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text('id,label,disputed,votes\na,x,,"{""ann"": ""x"", ""ben"": ""skip""}"\n')
    seen = seen_in(file, "project  p\nbatches         3, conflicts 0\n")
    assert seen.same(Ledger({("a", "ann"): "x", ("a", "ben"): "skip"}, 3))
    file.write_text('id,label,disputed,votes\na,y,,"{""ann"": ""x""}"\n')
    with pytest.raises(ValueError, match="is not the majority"):
        seen_in(file, "batches         3, conflicts 0")
    assert samples_of(file) == ("a",)


LOSSES = {
    "the last answers are gone": lambda lines: lines[:-2],
    "the first answers are gone": lambda lines: lines[2:],
    "another label": lambda lines: [line.replace("class 1", "class 2") for line in lines],
    "another annotator": lambda lines: [line.replace("ann", "ame") for line in lines],
    "a batch is gone": lambda lines: [line for line in lines if '"asked"' not in line],
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_noticed(loss: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a product without checksums might do: the lines are changed, renumbered, and read."""
    preload(tmp_path)
    (tmp_path / "place").mkdir()
    session = Session(tmp_path / "place", tmp_path, random.Random(0))
    arguments, after = session.prepare("tell")
    outcome = run(arguments)
    session.judge("tell", outcome, after)
    assert not session.faults
    journal = session.project / "journal.jsonl"
    events = [json.loads(line) for line in LOSSES[loss](journal.read_text().splitlines())]
    journal.write_text("".join(json.dumps(_renumbered(event, n)) + "\n" for n, event in enumerate(events, start=1)))
    (session.project / ".journal_length").unlink()
    arguments, after = session.prepare("status")
    session.judge("status", run(arguments), after)
    assert session.faults.total() == 1 and session.faults["traceback"] == 0
    assert "FAULT" in capsys.readouterr().out


def _renumbered(event: dict, number: int) -> dict:
    del event["crc32"]
    if "after" in event:
        event["after"] += number - event["n"]
    return event | {"n": number}


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"a": [1, {"b": "x"}]}, ""),
        ({"a": [1, {"b": "y"}]}, "/a/1/b was 'x' and is 'y'"),
        ({"a": [1]}, "/a was [1, {'b': 'x'}] and is [1]"),
        ({}, " was {'a': [1, {'b': 'x'}]} and is {}"),
    ],
)
def test_a_difference_is_named(now: object, words: str) -> None:
    assert difference({"a": [1, {"b": "x"}]}, now) == words


CONTENTS = {
    "json": b'{"a": 1}',
    "jsonl": b'{"a": 1}\n{"a": 2}\n',
    "yaml": b"a: [1]",
    "csv": b"a\n12\n",
    "md": b"words\n",
    "svg": b"<svg></svg>\n",
    "html": b"<html></html>",
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\xaeB`\x82",
}


@pytest.mark.parametrize("suffix", CONTENTS)
def test_half_a_file_is_noticed(suffix: str, tmp_path: Path) -> None:
    file, content = tmp_path / f"f.{suffix}", CONTENTS[suffix]
    file.write_bytes(content)
    assert halves(tmp_path, "") == []
    file.write_bytes(content.replace(b"1}\n", b"\n") if suffix == "jsonl" else content[:-2])
    (half,) = halves(tmp_path, "")
    assert half.startswith(str(file))
    file.rename(tmp_path / f".unfinished-1.{suffix}")
    assert halves(tmp_path, "") == []


@pytest.mark.slow
def test_another_end_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that begins to train with another seed."""
    runs = LongRuns(tmp_path, random.Random(0))
    while not runs.tally["train (evolution): ended"]:
        runs.death("train (evolution)")
    assert not runs.faults
    runs.commands["train (evolution)"].begin.extend(["--seed", "1"])
    while not runs.faults:
        runs.death("train (evolution)")
    assert runs.faults["lost"] == 1 and "ends otherwise" in capsys.readouterr().out


@pytest.mark.slow
def test_deaths_failures_and_power_cuts_lose_nothing() -> None:
    command = [sys.executable, "-m", "benchmarks.kill", "--deaths", "100", "--failures", "50", "--cuts", "20"]
    command += ["--long", "12"]
    done = subprocess.run([*command, "--seed", "1"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost 0, other 0, traceback 0" in done.stdout
