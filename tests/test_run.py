"""The command line: flags agree with the fields that they set, help and mistakes are quick, `rl-mba` is installed."""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import run
from envs.flags import CommandParser, field_at
from tests.support.paths import ROOT


def commands() -> dict[str, CommandParser]:
    action = next(a for a in run._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


FIELD_FLAGS = [(name, flag) for name, command in commands().items() for flag in command.field_flags]


def test_the_commands_and_the_flags_of_fields() -> None:
    assert list(commands()) == [
        "train", "average", "tune", "compare", "leave-one-out", "init", "ask", "tell", "status", "export", "undo",
    ]  # fmt: skip
    named = {f"{name} {flag.action.option_strings[0]}" for name, flag in FIELD_FLAGS}
    assert {"train --minutes", "tune --trials", "compare --seeds", "leave-one-out --splits", "init --budget"} <= named


@pytest.mark.parametrize(("name", "flag"), FIELD_FLAGS, ids=[f"{n} {f.action.dest}" for n, f in FIELD_FLAGS])
def test_a_flag_has_the_type_the_help_and_the_default_of_its_field(name: str, flag: argparse.Action) -> None:
    command = commands()[name]
    declaration, default = field_at(command.settings(), flag.path)
    assert (flag.action.type or str) is declaration.kind or declaration.kind == tuple[str, ...]
    assert flag.action.default is None  # what is not given leaves the files' value
    text = " ".join(command.format_help().split())
    help_ = " ".join((flag.words or declaration.help).split())
    assert help_, "the field has no Help"
    entry = text[text.index(help_) :]
    shown = ",".join(default) if isinstance(default, tuple) else str(default).removesuffix(".0")
    assert not shown or re.match(rf"{re.escape(help_)}[^()]* \({re.escape(shown)}\)", entry)


def test_no_other_flag_restates_a_default() -> None:
    for name, command in commands().items():
        of_fields = [flag.action for flag in command.field_flags]
        for action in command._actions:
            if action not in of_fields:
                assert not re.search(r"\([\d.]+\)", action.help or ""), f"{name} {action.option_strings}"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        ([], 2),
        (["trian"], 2),
        (["train", "--minuts", "5"], 2),
        (["train", "--minutes", "5"], 2),  # without --out
        (["train", "--minutes", "long", "--out", "x"], 2),
        (["compare", "--dataset", "emoji", "--out", "x", "--seeds", "2.5"], 2),
        (["tune", "--out", "x"], 2),
        (["ask", "--batch", "many", "x"], 2),
    ],
)
def test_help_and_mistakes_do_not_wait_for_torch(words: list[str], code: int) -> None:
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('loaded', sorted({'torch', 'ray', 'pydantic', 'scipy'} & set(sys.modules))))\n"
        "import run\n"
        "sys.exit(run.main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_the_console_entry_is_main_and_says_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["rl-mba"].partition(":")
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/rl-mba"])
    with pytest.raises(SystemExit):
        getattr(importlib.import_module(module), function)(["--help"])
    assert capsys.readouterr().out.startswith("usage: rl-mba ")


def test_run_is_a_frame() -> None:
    assert len((ROOT / "run.py").read_text(encoding="utf-8").splitlines()) <= 140


def test_what_lies_in_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "lies_here.py").write_text("nothing = 3\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    command = ["train", "--out", str(tmp_path / "out"), "--algorithm", "lies_here:nothing"]
    assert run.main(command) == 2
    assert "cannot be imported: No module named 'lies_here'" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert run.main(command) == 2
    assert "'lies_here:nothing' is no subclass of" in capsys.readouterr().err
    sys.modules.pop("lies_here")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--out", "o", "--dataset", ""], "--dataset is empty"),
        (["train", "--out", "o", "--dataset="], "--dataset is empty"),
        (["train", "--out", "o", "--dataset", "  "], "--dataset is empty"),
        (["train", "--out", ""], "--out is empty"),
        (["train", "--out", "o", "--config", ""], "--config is empty"),
        (["train", "--out", "o", "--preset", ""], "--preset is empty"),
        (["train", "--out", "o", "--storage", ""], "--storage is empty"),
        (["train", "--out", "o", "--set", ""], "--set is empty"),
        (["train", "--out", "o", "--minutes", ""], "--minutes is empty"),
        (["tune", "--out", "o", "--config", ""], "--config is empty"),
        (["average", "--out", "o", "--policies", ""], "--policies is empty"),
        (["compare", "--out", "o", "--dataset", "emoji", "--strategies", ""], "--strategies is empty"),
        (["compare", "--out", "o", "--dataset", "emoji", "--policy", ""], "--policy is empty"),
        (["leave-one-out", "--out", "o", "--dataset", ""], "--dataset is empty"),
        (["init", ""], "an argument is empty"),
        (["ask", "p", "--label-studio", ""], "--label-studio is empty"),
        (["tell", "p", "a.csv", ""], "an argument is empty"),
        (["train", "--out", "o", "--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["train", "--out", "o", "--out=p"], "--out is given twice"),
        (["compare", "--out", "o", "--dataset", "emoji", "--dataset", "watch"], "--dataset is given twice"),
        (["init", "p", "--samples", "a.csv", "--budget", "3", "--budget", "3"], "--budget is given twice"),
    ],
)
def test_a_flag_that_says_nothing_or_is_given_twice(words: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        run.main(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--out", "o", "--dataset", "emoji,"], "has an empty entry"),
        (["train", "--out", "o", "--dataset", ","], "has an empty entry"),
        (["compare", "--out", "o", "--dataset", "emoji,,watch"], "has an empty entry"),
        (["compare", "--out", "o", "--dataset", "emoji", "--strategies", "random,"], "has an empty entry"),
        (["average", "--out", "o", "--policies", "a,,b"], "has an empty entry"),
        (["train", "--out", "o", "--dataset", '"emoji'], "cannot be read as a list"),
        (["train", "--out", "o", "--set", "datasets=[]"], "name at least one data set"),
        (["train", "--out", "o", "--set", "datasets=emoji"], "write ['emoji']"),
        (["train", "--out", "o", "--dataset", "emoji,emoji"], "'emoji' is the same data set"),
        (["train", "--out", "o", "--set", "preset=nonsense"], "Unknown preset 'nonsense'"),
        (["train", "--out", "x" * 300], "too long a name"),
        (["train", "--out", "x" * 300, "--resume"], "too long a name"),
        (["tune", "--out", "x" * 300, "--resume"], "too long a name"),
        (["average", "--out", "o", "--policies", "x" * 300 + ",b"], "x"),
    ],
)
def test_mistakes_end_in_a_sentence(words: list[str], said: str, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line and len(line) < 800
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("debug", [False, True])
def test_the_traceback_is_shown_on_request(
    debug: bool, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.npz").write_text("no archive")
    monkeypatch.setenv("RL_MBA_DEBUG", "1" if debug else "")
    assert run.main(["init", str(tmp_path / "p"), "--samples", str(tmp_path / "bad.npz")]) == 2
    said = capsys.readouterr().err
    assert f"error: {tmp_path / 'bad.npz'} cannot be read" in said
    assert ("BadZipFile" in said) is debug
