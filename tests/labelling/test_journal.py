"""The journal keeps what was acknowledged, whatever happens; its replay gives the votes as they stand."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.errors import DataError
from labelling.journal import Journal
from labelling.state import conflicts, replay, verdict

LABELS = st.one_of(st.none(), st.sampled_from(["cat", "dog"]))
VOTES = st.lists(st.tuples(st.sampled_from("abc"), LABELS, st.sampled_from(["ann", "ben"])), max_size=4)


def told(n: int, votes, **more) -> dict:
    return {"n": n, "event": "told", "new_classes": [], "files": [], "labels": [[*v, 0, 0] for v in votes]} | more


@given(st.lists(VOTES, max_size=6), st.sets(st.integers(0, 5)))
def test_replay_is_that_of_the_events_that_were_not_undone(batches, undone) -> None:
    events = [told(n, votes) for n, votes in enumerate(batches, start=1)]
    undos = [{"n": 0, "event": "undo", "undoes": n} for n in undone]
    left = [event for event in events if event["n"] not in undone]
    assert replay([*events, *undos], ()).votes == replay(left, ()).votes


@given(st.lists(st.lists(st.text(max_size=20), max_size=3), max_size=8))
def test_what_is_appended_is_read_back(tmp_path_factory, contents) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "journal.jsonl")
    for content in contents:
        journal.append("told", labels=content)
    assert [event["labels"] for event in journal.read()] == contents


@given(st.lists(LABELS, max_size=7))
def test_a_verdict_is_the_majority_of_those_who_name_a_class(votes) -> None:
    found = verdict(votes)
    cats, dogs = votes.count("cat"), votes.count("dog")
    assert found.label == (None if cats == dogs else "cat" if cats > dogs else "dog")
    assert found.disputed == (cats > 0 and dogs > 0)


def test_conflicts_name_annotators_and_the_majority() -> None:
    state = replay([told(1, [("a", "cat", "ann"), ("a", "dog", "ben"), ("b", "cat", "ann"), ("b", None, "ben")])], ())
    assert conflicts(state) == [{"id": "a", "votes": {"ann": "cat", "ben": "dog"}, "label": ""}]


def test_a_line_without_its_end_never_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("told", labels=["first"])
    with open(journal.path, "ab") as file:
        file.write(b'{"n":2,"event":"told","labels":["half')
    assert len(journal.read()) == 1
    journal.append("told", labels=["second"])
    assert [event["labels"] for event in journal.read()] == [["first"], ["second"]]


def test_a_last_line_that_lacks_only_its_newline_counts(tmp_path: Path) -> None:
    """As an editor leaves it."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("told", labels=["first"])
    journal.path.write_bytes(journal.path.read_bytes().rstrip(b"\n"))
    assert [event["labels"] for event in journal.read()] == [["first"]]
    journal.append("told", labels=["second"])
    assert [event["labels"] for event in journal.read()] == [["first"], ["second"]]


def test_an_edited_line_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("told", labels=[])
    journal.append("told", labels=[])
    journal.path.write_text(journal.path.read_text().replace('"n":2', '"n":7'))
    with pytest.raises(DataError, match="line 2: not event 2"):
        journal.read()


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("told", labels=["kept"])
    before = journal.path.read_bytes()

    def full(_) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match="No space left on device; it is as it was"):
            journal.append("told", labels=["lost"])
    assert journal.path.read_bytes() == before
    journal.append("told", labels=["next"])
    assert [event["labels"] for event in journal.read()] == [["kept"], ["next"]]


def test_kill_9_while_appending_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """A child appends and acknowledges through a pipe until it is killed; sixty times on one journal."""
    journal = Journal(tmp_path / "journal.jsonl")
    acknowledged = 0
    for kill in range(60):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            for number in range(10_000):
                journal.append("told", labels=[[kill, number]] * 50)
                os.write(writer, b".")
        os.close(writer)
        if kill % 2:  # however busy the machine is, half of the children come to append
            acknowledged += len(os.read(reader, 1))
        time.sleep(0.002 + 0.0007 * (kill % 17))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as pipe:
            acknowledged += len(pipe.read())
        events = journal.read()
        assert acknowledged <= len(events) <= acknowledged + kill + 1  # at most one per kill was on its way
    assert acknowledged >= 30
    shutil.rmtree(tmp_path)
