"""The journal keeps what was acknowledged, whatever happens; its replay gives the votes as they stand."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import time
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import labelling.journal
from envs.errors import DataError
from labelling.events import Told, Undo
from labelling.journal import LENGTH, Journal
from labelling.state import Contradiction, conflicts, replay, verdict

CLASSES = ("cat", "dog")
LABELS = st.one_of(st.none(), st.sampled_from(["cat", "dog"]))
VOTES = st.lists(st.tuples(st.sampled_from("abc"), LABELS, st.sampled_from(["ann", "ben"])), max_size=4)


def told(n: int, votes: list, **more) -> Told:
    return Told(n=n, time="", files=[], new_classes=[], labels=[(*v, 0, 0) for v in votes], **more)


@given(st.lists(VOTES, max_size=6), st.sets(st.integers(1, 6)))
def test_replay_is_that_of_the_events_that_were_not_undone(batches, undone) -> None:
    events = [told(n, votes) for n, votes in enumerate(batches, start=1)]
    undos = [Undo(n=10 + n, time="", undoes=n) for n in undone if n <= len(events)]
    left = [event for event in events if event.n not in undone]
    assert replay([*events, *undos], CLASSES).votes == replay(left, CLASSES).votes


def record(journal: Journal, *labels: str) -> None:
    """Append answers, each about another sample."""
    journal.append("told", files=[], new_classes=[], labels=[[f"s{i}", c, "ann", 0, i] for i, c in enumerate(labels)])


def labels_in(journal: Journal) -> list[list[str]]:
    return [[label for _, label, *_ in event.labels] for event in journal.read()]


@given(st.lists(st.lists(st.text(max_size=20), max_size=3), max_size=8))
def test_what_is_appended_is_read_back(tmp_path_factory, contents) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "journal.jsonl")
    for content in contents:
        record(journal, *content)
    assert labels_in(journal) == contents


@given(st.lists(LABELS, max_size=7))
def test_a_verdict_is_the_majority_of_those_who_name_a_class(votes) -> None:
    found = verdict(votes)
    cats, dogs = votes.count("cat"), votes.count("dog")
    assert found.label == (None if cats == dogs else "cat" if cats > dogs else "dog")
    assert found.disputed == (cats > 0 and dogs > 0)


def test_conflicts_name_annotators_and_the_majority() -> None:
    state = replay(
        [told(1, [("a", "cat", "ann"), ("a", "dog", "ben"), ("b", "cat", "ann"), ("b", None, "ben")])], CLASSES
    )
    assert conflicts(state) == [{"id": "a", "votes": {"ann": "cat", "ben": "dog"}, "label": ""}]


def test_a_line_without_its_end_never_counted(tmp_path: Path) -> None:
    """Wherever it ends."""
    journal = Journal(tmp_path / "journal.jsonl")
    record(journal, "first")
    first = journal.path.read_bytes()
    record(journal, "half, of which nobody heard")
    second = journal.path.read_bytes()
    for end in range(len(first), len(second)):
        journal.path.write_bytes(second[:end])
        (tmp_path / LENGTH).write_text("1\n")
        assert labels_in(journal) == [["first"], *([["half, of which nobody heard"]] if end == len(second) - 1 else [])]
        record(journal, "next")
        assert labels_in(journal)[-1] == ["next"] and journal.path.read_bytes().startswith(first)


def test_a_last_line_that_lacks_only_its_newline_counts(tmp_path: Path) -> None:
    """As an editor leaves it."""
    journal = Journal(tmp_path / "journal.jsonl")
    record(journal, "first")
    journal.path.write_bytes(journal.path.read_bytes().rstrip(b"\n"))
    assert labels_in(journal) == [["first"]]
    record(journal, "second")
    assert labels_in(journal) == [["first"], ["second"]]


@pytest.mark.parametrize("end", [0, 1, 2, -40, -1])
def test_a_journal_that_became_shorter(end: int, tmp_path: Path) -> None:
    """Whole lines that are gone, or the end of one that had been acknowledged."""
    journal = Journal(tmp_path / "journal.jsonl")
    for label in ("first", "second", "third"):
        record(journal, label)
    content = journal.path.read_bytes()
    left = b"".join(content.splitlines(keepends=True)[:end]) if end >= 0 else content[:end]
    journal.path.write_bytes(left)
    if end == -1:  # nothing but the newline
        assert len(journal.read()) == 3
        return
    with pytest.raises(DataError, match=rf"ends after event {max(end, 2 if end < 0 else 0)}, and 3 had been recorded"):
        journal.read()
    (tmp_path / LENGTH).unlink()  # as the message says
    assert len(journal.read()) == max(end, 2 if end < 0 else 0)


@pytest.mark.parametrize("length", [b"", b"x", b"1", b"\xff\n"])
def test_a_length_that_is_not_known(length: bytes, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    record(journal, "first")
    record(journal, "second")
    (tmp_path / LENGTH).write_bytes(length)
    assert len(journal.read()) == 2


def small_project(place: Path) -> Journal:
    """A journal with every kind of event."""
    journal = Journal(place / "journal.jsonl")
    row = {"id": "s1", "predicted": "", "confidence": "", "why": "x"}
    journal.append("asked", batch=1, rows=[row])
    journal.append("told", files=["ä.csv"], new_classes=["cat"], labels=[["s1", "cat", "ann", 0, 2]])
    journal.append("trained", after=2, progress={"training_labels": 1})
    journal.append("told", files=[], new_classes=[], labels=[["s1", None, "ben", 0, 0], ["s2", "cat", "ben", 0, 0]])
    journal.append("undo", undoes=4)
    record(journal, "cat")
    return journal


def outcome(journal: Journal) -> object:
    """The labels, or "refused"; anything else raises."""
    try:
        return replay(journal.read(), ()).votes
    except (DataError, Contradiction):
        return "refused"


@pytest.mark.parametrize("first_without", [False, True], ids=["checksums", "of the first releases, appended to"])
@pytest.mark.parametrize("pattern", [1, 2, 4, 8, 16, 32, 64, 128, 255, 42])
def test_no_changed_byte_becomes_another_label(pattern: int, first_without: bool, tmp_path: Path) -> None:
    journal = small_project(tmp_path)
    if first_without:
        lines = journal.path.read_bytes().splitlines(keepends=True)[:5]
        journal.path.write_bytes(b"".join(line[:-21] + b"}\n" for line in lines))
        record(journal, "cat")
    assert outcome(journal) == {"s1": {"ann": "cat"}, "s0": {"ann": "cat"}}
    check_changed_bytes(journal, [pattern])


@pytest.mark.slow
def test_no_byte_becomes_another_label_whatever_it_becomes(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("told", files=["ä.csv"], new_classes=["cat"], labels=[["s1", "cat", "ann", 0, 2]])
    record(journal, "cat")
    check_changed_bytes(journal, range(1, 256))


def check_changed_bytes(journal: Journal, patterns: Iterable[int]) -> None:
    """Change every byte by each pattern: the journal is refused."""
    content = journal.path.read_bytes()
    for pattern in patterns:
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= pattern
            journal.path.write_bytes(changed)
            assert outcome(journal) == "refused", (place, pattern, content[max(0, place - 20) : place + 5])


@pytest.mark.parametrize("change", ["swap", "repeat", "drop", "other", "CRLF", "zeros"])
def test_lines_that_are_not_where_they_were(change: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for label in ("first", "second", "third"):
        record(journal, label)
    a, b, c = journal.path.read_bytes().splitlines(keepends=True)
    (tmp_path / "other").mkdir()
    other = Journal(tmp_path / "other" / "journal.jsonl")
    for label in ("fiRst", "seCond"):
        record(other, label)
    strange = other.path.read_bytes().splitlines(keepends=True)[1]
    crlf = [line[:-1] + b"\r\n" for line in (a, b, c)]
    lines = {"swap": [b, a, c], "repeat": [a, a, b, c], "drop": [a, c], "other": [a, strange, c], "CRLF": crlf,
             "zeros": [a, bytes(len(b) - 1) + b"\n", c]}[change]  # fmt: skip
    journal.path.write_bytes(b"".join(lines))
    with pytest.raises(DataError, match=r"line \d: .*Restore the file from a copy"):
        journal.read()


def with_checksum(journal: Journal, text: bytes) -> None:
    """Append a line as a newer release might."""
    checksum = zlib.crc32(text[:-1], zlib.crc32(journal.path.read_bytes()))
    with open(journal.path, "ab") as file:
        file.write(text[:-1] + b',"crc32":"%08x"}\n' % checksum)


@pytest.mark.parametrize(
    "text, words",
    [
        (b'{"n":2,"event":"merged","time":"","of":["a","b"]}', "the event 'merged' is unknown"),
        (b'{"n":2,"event":"undo","time":"","undoes":1,"by":"ann"}', "the field 'by' is unknown"),
        (b'{"n":2,"event":"told","time":"","files":[],"new_classes":[],"labels":[],"sure":[1]}', "the field 'sure'"),
    ],
)
def test_what_a_newer_release_wrote(text: bytes, words: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    record(journal, "first")
    with_checksum(journal, text)
    with pytest.raises(DataError, match=rf"line 2: {words} to this release; a newer release wrote it|{words}") as said:
        journal.read()
    assert "newer release" in str(said.value) and "damaged" not in str(said.value)


def test_an_edited_line_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for label in ("first", "second", "third"):
        record(journal, label)
    journal.path.write_text(journal.path.read_text().replace("second", "secund"))
    advice = rf"delete line 2 and all that follow it and {LENGTH}"
    with pytest.raises(DataError, match=rf"line 2: its checksum is another; .*{advice}"):
        journal.read()
    journal.path.write_text(journal.path.read_text().splitlines(keepends=True)[0])
    (tmp_path / LENGTH).unlink()
    assert labels_in(journal) == [["first"]]


@pytest.mark.parametrize(
    "labels",
    [[["s1", "\ud83d", "ann", 0, 0]], [["s1", "cat", 5, 0, 0]], [["s1", 5, "ann", 0, 0]], [["s1", "cat"]], None],
)
def test_what_could_not_be_read_is_not_written(labels: object, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    record(journal, "first")
    before = journal.path.read_bytes()
    with pytest.raises(DataError, match=r"cannot hold this: .* Nothing was recorded"):
        journal.append("told", files=[], new_classes=[], labels=labels)
    assert journal.path.read_bytes() == before


@pytest.mark.parametrize("fails", ["fsync", "write", "open"])
def test_a_full_disk_leaves_the_journal_as_it_was(fails: str, tmp_path: Path, monkeypatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    record(journal, "kept")
    before = journal.path.read_bytes()

    def full(*_, **__) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full(io.FileIO):
        def write(self, data) -> int:
            return super().write(data[:10]) if len(data) > 30 and not self.tell() % 2 else full()

    with monkeypatch.context() as patch:
        if fails == "fsync":
            patch.setattr(os, "fsync", full)
        else:
            patch.setattr(
                labelling.journal, "open", (lambda path, *_, **__: Full(path, "ab")) if fails == "write" else full,
                raising=False,
            )  # fmt: skip
        with pytest.raises(DataError, match="No space left on device; it is as it was"):
            record(journal, "lost")
    assert journal.path.read_bytes() == before
    record(journal, "next")
    assert labels_in(journal) == [["kept"], ["next"]]


def test_an_event_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch) -> None:
    """The line is whole when the disk is waited for, and the length is written after."""
    journal = Journal(tmp_path / "journal.jsonl")
    record(journal, "first")
    seen = []
    monkeypatch.setattr(
        os, "fsync", lambda _: seen.append((journal.path.read_bytes(), (tmp_path / LENGTH).read_text()))
    )
    record(journal, "second")
    ((content, length),) = seen
    assert content == journal.path.read_bytes() and content.endswith(b"}\n") and length == "1\n"
    assert (tmp_path / LENGTH).read_text() == "2\n"


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
                record(journal, *[f"{kill}, {number}"] * 50)
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
