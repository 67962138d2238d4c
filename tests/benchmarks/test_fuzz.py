"""A few damaged files for every reader, the same ones each time; `make fuzz` tries 20,000."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.readers import Reader, readers
from benchmarks.run_readers import LEFT

READERS = (
    "pool folder", "pool .npz", "table", "samples and features", "Label Studio export", "labelling project",
    "exported model", "policy", "settings", "array store", "journal", "Label Studio link",
    "Label Studio server", *LEFT,
)  # fmt: skip
GOOD = (fuzz.REFUSED, fuzz.SAME, fuzz.OTHER)


def forever() -> None:
    """What no reader may do."""
    while True:
        pass


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return readers(tmp_path_factory.mktemp("valid"))


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(name: str, known: dict[str, Reader]) -> None:
    found = fuzz.run(name, known[name], 0, range(30))
    assert [case for case in found if case[1] not in GOOD] == []
    assert any(outcome == fuzz.REFUSED for _, outcome, _ in found)


def test_every_reader_is_tested(known: dict[str, Reader]) -> None:
    assert set(known) == set(READERS)


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda _: "x", fuzz.OTHER),
        (lambda folder: (folder / "f").read_text(), fuzz.SAME),
        (lambda _: forever(), "more than 0.1 s"),
    ],
)
def test_what_becomes_of_a_file_is_judged(read, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid" / "f").write_text("a")
    reader = Reader(tmp_path / "valid", read, ("f",))
    monkeypatch.setattr(fuzz, "SECONDS", 0.1)
    valid = fuzz.digest("a", tmp_path)
    assert fuzz.judge(reader, tmp_path / "copy", "f", b"a", valid)[0] == outcome
