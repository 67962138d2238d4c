"""How the repository is laid out: tests mirror the tree and stand alone, files stay short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.long import LONG
from tests.support.paths import ROOT

TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
ROOMS = ("envs", "runtime", "policies", "learners", "evaluation", "labelling", "benchmarks", "examples", "tests")
MOST_LINES = 400


def imported(file: Path) -> set[str]:
    """Full names of what a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            names.add(node.module or "")
    return names


def test_a_test_file_imports_no_other() -> None:
    for file in TESTS:
        tests = {name for name in imported(file) if name.partition(".")[0] == "tests"}
        assert all(name.startswith("tests.support") for name in tests), file


def test_folders_of_tests_are_those_of_the_tree() -> None:
    for folder in {file.parent.relative_to(ROOT / "tests") for file in TESTS}:
        assert (ROOT / folder).is_dir(), folder


@pytest.mark.parametrize("name", LONG)
def test_files_that_come_first_exist(name: str) -> None:
    assert (ROOT / "tests" / name) in TESTS


def test_no_file_is_long() -> None:
    lengths = {
        file: len(file.read_text("utf-8").splitlines()) for room in ROOMS for file in (ROOT / room).rglob("*.py")
    }
    assert {str(file): lines for file, lines in lengths.items() if lines > MOST_LINES} == {}
