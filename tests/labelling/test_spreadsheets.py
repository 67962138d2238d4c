"""What a spreadsheet makes of a cell, and which ids it may have written like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelling.spreadsheets import Twins, changes, guarded, unguarded

# What a spreadsheet writes in the place of an id. A further specimen is one line.
REWRITTEN = [
    ("03", "3"),
    ("007", "7"),
    ("+5", "5"),
    ("1.50", "1.5"),
    ("1.10", "1.1"),
    ("1.0", "1"),
    (".5", "0.5"),
    ("23E9", "2.30E+10"),
    ("23E9", "2.3E+10"),
    ("23e9", "23000000000"),
    ("1E3", "1.00E+03"),
    ("12e-2", "0.12"),
    ("1000000000000003", "1000000000000000"),
    ("1000000000000003", "1E+15"),
    ("4917012345678901", "4.91701E+15"),
    ("4917012345678901", "4917012345678900"),
    ("-4917012345678901", "-4917012345678900"),
    ("123456789012", "1.23457E+11"),
    ("1,234", "1234"),
    ("(7)", "-7"),
    ("1-2", "01.02.2026"),
    ("1-2", "2-Jan"),
    ("1-2", "Feb 1"),
    ("3/4", "4-Mar"),
    ("1.2", "01. Feb"),
    ("MARCH1", "1-Mar"),
    ("SEPT2", "2-Sep"),
    ("DEC1", "1. Dec"),
    ("true", "TRUE"),
    ("true", "WAHR"),
    ("False", "FAUX"),
]
STAYS = [
    "s1",
    "1F600",
    "u23E9",
    "7",
    "0",
    "-5",
    "12345678901",
    "a-1-2",
    "image 3.png",
    "x=1",
    "TRUEST",
    "nan",
    "größe_20",
]


@pytest.mark.parametrize(("sample", "written"), REWRITTEN)
def test_an_id_that_is_rewritten_is_recognised(sample: str, written: str) -> None:
    twins = Twins([sample, *STAYS])
    assert changes(sample) and twins.changed == [sample]
    assert twins.of(written) == [sample] and not twins.of("s1") and not twins.of("8")


@pytest.mark.parametrize("sample", STAYS)
def test_an_id_that_stays(sample: str) -> None:
    assert not changes(sample)


@pytest.mark.parametrize(
    "sample", ["=1+2", "+a", "-abc", "@home", "'03", "12:30", "5%", "$5", "2026-01-31", "1/2/2026"]
)
def test_other_ids_that_change(sample: str) -> None:
    assert changes(sample)


def test_what_no_spreadsheet_writes_has_been_through_none() -> None:
    twins = Twins(["03", "3", "003", "1000000000000003", "1000000000000000", "1-2", "2-1", "true", "TRUE"])
    assert twins.of("3", is_id=True) == ["003", "03"]
    assert twins.of("1000000000000000", is_id=True) == ["1000000000000003"]
    assert twins.of("TRUE", is_id=True) == ["true"]
    for sample in ("03", "003", "1000000000000003", "1-2", "true"):
        assert not twins.of(sample, is_id=True)


@given(st.text(max_size=30))
def test_any_text(text: str) -> None:
    changes(text)
    Twins([text]).of(text)
    assert unguarded(guarded(text)) == text or text.startswith("'")
    assert not guarded(text).startswith(("=", "@", "\t"))
