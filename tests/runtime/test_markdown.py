"""Tables in Markdown."""

from __future__ import annotations

from runtime.markdown import escape, head, row, table


def test_a_table_is_its_head_and_its_rows():
    text = "| name | a | b |\n|---|---:|---:|\n| x | 1 | 2.5 |\n| y |  | – |"
    assert table(["name", "a", "b"], [["x", 1, 2.5], ["y", "", "–"]]) == text
    assert "\n".join([head(["name", "a", "b"]), row(["x", 1, 2.5]), row(["y", "", "–"])]) == text


def test_columns_of_text_are_on_the_left():
    assert head(["n", "where", "rate"], left=(1,)).splitlines()[1] == "|---:|---|---:|"
    assert head(["n", "rate"], left=()).splitlines()[1] == "|---:|---:|"


def test_what_a_user_named_stays_in_its_cell():
    line = row([escape("a|b\n<script>&amp;"), "next"])
    assert line == "| a\\|b &lt;script>&amp;amp; | next |"
    assert line.replace("\\|", "").count("|") == 3
