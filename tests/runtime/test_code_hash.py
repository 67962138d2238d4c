"""The hash of the code behind a result: who is followed, and who is left out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs.errors import ConfigError
from evaluation.results import PLAYER
from policies.strategies import STRATEGIES, get_strategy
from runtime.code_hash import _source_file, code_hash, sources_behind
from tests.support.paths import ROOT

EDITS = """
import json, sys
from pathlib import Path
from envs.models.frozen.trainer import FrozenConfig
from runtime.code_hash import code_hash, describe_settings

def now():
    code_hash.cache_clear()
    names = "random", "badge", "uncertainty", "learned"
    played = [code_hash("evaluation.playing", f"policies.strategies.{name}") for name in names]
    return [*played, describe_settings(FrozenConfig())["code"]]

def edit(path, text="\\n# another line\\n"):
    with Path(sys.argv[1], path).open("a") as stream:
        stream.write(text)
    return now()

hashes = {"first": now(), "again": now()}
hashes["new"] = edit("policies/strategies/mine.py", "def mine(round_, batch_size):\\n    return None\\n")
hashes["registry"] = edit("policies/strategies/__init__.py", "from policies.strategies.mine import mine\\n")
hashes["badge"] = edit("policies/strategies/badge.py")
hashes["selector"] = edit("policies/selector.py")
hashes["task model"] = edit("envs/models/frozen/model.py")
hashes["simulation"] = edit("envs/simulation.py")
hashes["memory"] = edit("runtime/memory.py")
hashes["report"] = edit("evaluation/report/page.py")
print(json.dumps(hashes))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package outside the project; caches forget it afterwards."""
    folder = tmp_path / "hashed_package"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "inner" / "__init__.py").write_text("VALUE = 1\n")
    for name in ("strategy", "helper", "unused"):
        (folder / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    _source_file.cache_clear()
    yield folder
    _source_file.cache_clear()


def changes(file: Path, module: str = "hashed_package.strategy") -> bool:
    """Whether an edit of a file changes the module's hash."""
    code_hash.cache_clear()
    before = code_hash(module)
    file.write_text(file.read_text() + "# another line\n")
    code_hash.cache_clear()
    return code_hash(module) != before


def test_an_edit_reaches_those_that_import_the_file_and_a_new_strategy_reaches_nobody(tmp_path: Path) -> None:
    for name in ("envs", "policies", "runtime", "evaluation"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("data", "__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", EDITS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    hashes = json.loads(done.stdout)
    assert len(set(hashes["first"])) == 5
    assert hashes["first"] == hashes["again"] == hashes["new"] == hashes["registry"]

    def changed(before: str, after: str) -> list[bool]:
        return [a != b for a, b in zip(hashes[before], hashes[after], strict=True)]

    assert changed("registry", "badge") == [False, True, False, False, False]
    assert changed("badge", "selector") == [False, False, False, True, False]
    assert changed("selector", "task model") == [False, False, False, False, True]
    assert changed("task model", "simulation") == [True, True, True, True, False]
    assert changed("simulation", "memory") == [True, True, True, True, False]
    assert changed("memory", "report") == [False] * 5


LOADED = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
projects = {n: m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] in ("envs", "policies", "runtime")}
print(*(n for n, file in projects.items() if not file.endswith("__init__.py")), sep="\\n")
"""


@pytest.mark.parametrize("player", [PLAYER, "learners.baseline_curves"])
def test_nothing_that_runs_is_missed(player: str) -> None:
    """What Python loads for the player and all strategies, but packages that only hand names on."""
    modules = [player, *sorted({get_strategy(name).__module__ for name in STRATEGIES})]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOADED, *modules]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    loaded = set(done.stdout.split())
    assert "envs.simulation" in loaded
    assert loaded <= set(sources_behind(modules))


@pytest.mark.parametrize(
    ("line", "followed"),
    [
        ("import hashed_package.helper", True),
        ("import hashed_package.helper as h", True),
        ("from hashed_package import helper", True),
        ("from hashed_package.helper import something", True),
        ("from . import helper", True),
        ("from .helper import something", True),
        ("from .helper import *", True),
        ("def f():\n    from hashed_package import helper", True),
        ("if False:\n    import hashed_package.helper", True),
        ("import hashed_package.inner", False),
        ("'import hashed_package.helper'", False),
    ],
)
def test_every_form_of_import_is_followed(package: Path, line: str, followed: bool) -> None:
    (package / "strategy.py").write_text(f"{line}\n")
    assert changes(package / "helper.py") is followed
    assert not changes(package / "unused.py")


def test_imports_of_imports_and_of_packages(package: Path) -> None:
    (package / "strategy.py").write_text("from .inner import VALUE\n")
    assert changes(package / "inner" / "__init__.py")
    (package / "inner" / "__init__.py").write_text("from ..helper import VALUE\n")
    assert changes(package / "helper.py")
    assert not changes(package / "__init__.py")  # nothing that it defines is used
    (package / "helper.py").write_text("import hashed_package.strategy\n")  # a circle ends
    assert changes(package / "strategy.py")


def test_own_modules_follow_the_project(package: Path) -> None:
    (package / "strategy.py").write_text("")
    code_hash.cache_clear()
    alone = code_hash("hashed_package.strategy")
    (package / "strategy.py").write_text("from envs.round import Round\n")
    code_hash.cache_clear()
    assert code_hash("hashed_package.strategy", "envs.round") == code_hash("envs.round", "hashed_package.strategy")
    assert len({alone, code_hash("hashed_package.strategy"), code_hash("envs.round")}) == 3


@pytest.mark.parametrize("module", ["no_such_module", "envs.no_such_module", "sys"])
def test_a_module_without_source_is_refused(module: str) -> None:
    with pytest.raises(ConfigError, match=f"'{module}' has no source file"):
        code_hash(module)
