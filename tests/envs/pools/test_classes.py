"""Names of classes: one spelling whatever the door, and a question where it is not certain. A specimen is one line."""

from __future__ import annotations

import unicodedata
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from envs.errors import DataError
from envs.pools import load_pool
from envs.pools.classes import Vocabulary, declared, spelling
from tests.support.pools import tiny, write_npz


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("red", "red"),
        (" red\n", "red"),
        ("light\u00a0 blue", "light blue"),
        (unicodedata.normalize("NFD", "Größe"), "Größe"),
        ("7.0", "7"),
        ("7.00", "7"),
        ("-3.0", "-3"),
        ("-0.0", "0"),
        ("07.0", "07.0"),
        ("7.5", "7.5"),
        (7, "7"),
        (7.0, "7"),
        (np.float32(7), "7"),
        (np.int64(7), "7"),
        (Decimal("7.00"), "7"),
        (True, "True"),
        (b"red", "red"),
        (None, ""),
        (float("nan"), ""),
        (np.float64("nan"), ""),
        (" \u2003", ""),
        ("None", "None"),
    ],
)
def test_one_spelling(given: object, name: str) -> None:
    assert spelling(given) == name
    assert spelling(name) == name


MEANT = [
    (["7"], "7.0", "7"),
    (["7.0"], "7", "7.0"),  # what an earlier release took as it was stays
    (["7", "7.0"], "7.0", "7.0"),
    (["café"], unicodedata.normalize("NFD", "café"), "café"),
    ([unicodedata.normalize("NFD", "café")], "café", unicodedata.normalize("NFD", "café")),
    (["Red", "red"], "red", "red"),
    (["true", "false"], "TRUE", "true"),
    (["true", "false"], "FALSCH", "false"),
    (["True", "False"], "VRAI", "True"),
    (["TRUE", "FALSE"], "WAHR", "TRUE"),
    (["None", "red"], "None", "None"),
    (["red", "blue", "red/blue"], "red/blue", "red/blue"),
]


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(("known", "label", "name"), MEANT)
def test_another_spelling_of_a_known_class(known: list[str], label: str, name: str, closed: bool) -> None:
    vocabulary = Vocabulary(known, closed=closed)
    assert vocabulary.find(label) == name
    assert vocabulary.names == known


DOUBTFUL = [
    (["red"], "Red", "differs from class 'red' by case only; write one of the two"),
    (["red"], "ＲＥＤ", "in its spelling only"),
    (["red"], "r\u0435d", "in its spelling only"),  # a Cyrillic letter
    (["light blue"], "light_blue", "in its spelling only"),
    (["light blue"], "light–blue", "in its spelling only"),
    (["don't know"], "don’t know", "in its spelling only"),
    (["7"], "07", "in its spelling only"),
    (["7"], "7,0", "in its spelling only"),
    (["1000"], "1e3", "in its spelling only"),
    (["red"], "red.", "in its spelling only"),
    (["red"], "re\u200bd", r"invisible character \(U\+200B, ZERO WIDTH SPACE\); write 'red'"),
    (["red"], "red\ufeff", r"U\+FEFF"),
    ([], "so\u00adft", r"U\+00AD"),
    ([], "a\u2800", r"U\+2800"),
    ([], "\ud83d", "lost in another encoding"),
    ([], "Gr\ufffde", "lost in another encoding"),
    ([], "two\nlines", "a name in one line"),
    ([], "a\u2028b", "a name in one line"),
    (["Größe"], "GrÃ¶ÃŸe", "and class 'Größe' are one, read in two encodings"),
    (["Größe"], "Gr√∂√üe", "are one"),
    (["Größe"], "Gr?\u00dfe".replace("\u00df", "?"), "are one"),
    (["Größe"], "Gr\ufffd\ufffde", "are one"),
    (["Gr√∂√üe"], "Größe", "are one"),
    (["Тест"], "Òåñò", "are one"),
    ([], "GrÃ¶ÃŸe", "is 'Größe' in UTF-8, read in another encoding; write 'Größe'"),
    ([], "GrÃƒÂ¶ÃƒÅ¸e", "is 'Größe'"),
    ([], "æ—¥æœ¬", "is '日本'"),
    *(([], nothing, "looks like none.*empty the cell; if it is a class, declare it: --new-classes") for nothing in (
        "nan", "NaN", "None", "null", "NA", "N/A", "<NA>", "#N/A", "#REF!", "NaT", "unlabeled", "Unlabelled",
        "not_labeled", "no label", "(none)", "?", "-", "--", "…".replace("…", "..."), "-1", "missing", "todo",
    )),
    (["a", "b"], '["a", "b"]', "is a list; a sample has one class"),
    ([], "['a']", "is a list"),
    (["a", "b"], "a#b", r"several classes \(a, b\)"),
    (["a", "b"], "a | B", "several classes"),
]  # fmt: skip


@pytest.mark.parametrize(("known", "label", "words"), DOUBTFUL)
def test_what_is_doubtful_is_asked(known: list[str], label: str, words: str) -> None:
    vocabulary = Vocabulary(known)
    with pytest.raises(DataError, match=words):
        vocabulary.find(label)
    assert vocabulary.names == known


@pytest.mark.parametrize(
    "label",
    [
        *("Spaß–Faktor", "l’école", "RĂŞINĂ", "日本", "Òåñò", "👨‍👩‍👧", "می‌خواهم", "C++", "A-", "N+", "?!", "0", "x/y"),
        *("Travel & Places", "vero", "Nevada", "nonea", "1.5", "é", "[other]", "unknown species"),
    ],
)
def test_what_is_not_doubtful_is_not(label: str) -> None:
    assert Vocabulary(["A", "Ú", "C", "N", "1", "known"]).find(label) == label


@pytest.mark.parametrize("name", ["None", "NA", "null", "nan", "unknown", "-", "a#b", "-1"])
def test_a_class_that_is_declared_is_one(name: str) -> None:
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.declare(name) == vocabulary.find(name) == name
    assert declared(["red", name]) == ("red", name)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["Blue", "blue"], "class 'blue' differs from class 'Blue' by case only"),
        (["7", 7.0], "'7' occurs twice"),
        (["café", unicodedata.normalize("NFD", "café")], "occurs twice"),
        (["red", "re\u200bd"], "invisible"),
        (["red", None], "needs a name"),
        (["x" * 501], "501 characters; at most 500"),
        (["red", ["blue"]], "of type list"),
        ("red", "give a list of names"),
    ],
)
def test_declared_names_are_distinct(names: list, words: str) -> None:
    for door in (declared, lambda given: tiny(labels=np.full(12, -1), class_names=given)):
        with pytest.raises(DataError, match=words):
            door(names)


def test_a_part_may_come_after_the_whole() -> None:
    vocabulary = Vocabulary(["red"])
    assert vocabulary.find("red#blue") == "red#blue"
    with pytest.raises(DataError, match="'red#blue' seems to name several"):
        vocabulary.find("blue")
    assert Vocabulary(counts={"red#blue": 1, "red": 2}).find("red#blue")
    with pytest.raises(DataError, match="several"):
        Vocabulary(counts={"red#blue": 1, "red": 2, "Blue": 1}).find("red#blue")


def test_counts_and_the_command_are_said() -> None:
    vocabulary = Vocabulary(declare="--classes", counts={"Red": 3, "red": 4, "nan": 20, "a, b": 1})
    vocabulary.find("Red")
    with pytest.raises(DataError, match=r"\('red': 4, 'Red': 3\)"):
        vocabulary.find("red")
    with pytest.raises(
        DataError, match=r"'nan' \(20 of 28 labels\).*name all classes: --classes 'Red,red,nan,\"a, b\"'"
    ):
        vocabulary.find("nan")


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (["7", "7.0", "", "8", "8"], ("7", "8")),
        ([unicodedata.normalize("NFD", "é"), "é", "a", "a", " "], ("a", "é")),
    ],
)
def test_an_npz_has_one_spelling(y: list[str], names: tuple[str, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_a=np.ones((5, 2)), y=np.array(y))
    pool = load_pool(tmp_path / "a.npz")
    assert pool.class_names == names
    assert pool.labels.tolist() == [names.index(spelling(label)) if label.strip() else -1 for label in y]


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (["red", "Red", "red", "Red"], r"row 1: .* by case only; write one of the two \('Red': 2, 'red': 2\)"),
        (["red", "nan", "red", "nan"], r"row 1: label 'nan' \(2 of 4 labels\).*make it \"\"; .* in class_names 'nan'"),
        (["red", "red", "x\u200b", "x"], "row 2: .*invisible"),
    ],
)
def test_an_npz_is_asked(y: list[str], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_a=np.ones((4, 2)), y=np.array(y))
    with pytest.raises(DataError, match=words):
        load_pool(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x_a=np.ones((4, 2)), y=np.array(["red", "nan"] * 2), class_names=["nan", "red"])
    assert load_pool(tmp_path / "b.npz").labels.tolist() == [1, 0, 1, 0]


def test_a_label_that_an_npz_does_not_declare(tmp_path: Path) -> None:
    y = np.array(["ant", "Bee"] * 6)
    with pytest.raises(DataError, match="row 1: label 'Bee' differs from class 'bee' by case only"):
        load_pool(write_npz(tmp_path / "a.npz", y=y))
