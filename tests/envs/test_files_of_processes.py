"""Files and folders that several processes write, of which some are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envs.files import UNFINISHED, new_folder, remove_unfinished
from tests.support.paths import ROOT

WRITE = """
import sys
from pathlib import Path
from envs.files import new_file, new_folder
place, letter = Path(sys.argv[1]), sys.argv[2]
def ours(folder):
    return (folder / "part0").is_file()
print("ready", flush=True)
number = 0
while True:
    number += 1
    text = f"{letter}{number} " * 20_000
    if sys.argv[3] == "file":
        with new_file(place) as aside:
            aside.write_text(text)
    else:
        try:
            with new_folder(place, ours) as new:
                for part in range(5):
                    (new / f"part{part}").write_text(text)
        except OSError:
            pass  # the other one was there first
"""


def writer(place: Path, letter: str, kind: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(place), letter, kind], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def is_whole(text: str) -> bool:
    """Whether a text is one writer's of one time."""
    word = text.split(" ", 1)[0]
    return bool(word) and text == f"{word} " * 20_000


def test_readers_find_a_whole_file_whoever_writes_and_whoever_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "a"
    for round_ in range(3):
        processes = [writer(file, letter, "file") for letter in "ab"]
        try:
            until = time.monotonic() + 20
            seen: set[str] = set()
            while len(seen) < 5 + round_ and time.monotonic() < until:
                if file.exists():
                    text = file.read_text()
                    assert is_whole(text)
                    seen.add(text)
            assert len(seen) > 1
        finally:
            for process in processes:
                process.send_signal(signal.SIGKILL)
                process.wait()
        assert is_whole(file.read_text())
    remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_is_one_writers_whoever_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    for _ in range(3):
        processes = [writer(folder, letter, "folder") for letter in "ab"]
        try:
            until = time.monotonic() + 20
            while not folder.exists() and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.3)
        finally:
            for process in processes:
                process.send_signal(signal.SIGKILL)
                process.wait()
        # A kill between the two renames of a replacement leaves the older folder under a hidden name.
        found = [folder] if folder.exists() else list(tmp_path.glob(f"{UNFINISHED}*/old"))
        contents = [{path.read_text() for path in place.iterdir()} for place in found if len(os.listdir(place)) == 5]
        assert any(len(texts) == 1 and is_whole(texts.pop()) for texts in contents)
        remove_unfinished(tmp_path)


CUT = """
import os, signal, sys
from pathlib import Path
import envs.files
step, place = sys.argv[1], Path(sys.argv[2])
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if step != "write":
    setattr(os, step, kill)
with envs.files.new_file(place) as aside:
    aside.write_text("newer")
    if step == "write":
        kill()
"""


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_kill_between_two_steps_leaves_the_older_file(step: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("older")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", CUT, step, str(tmp_path / "a")], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_text() == "older"
    assert sorted(path.name[: len(UNFINISHED)] for path in tmp_path.iterdir()) == [UNFINISHED, "a"]


CUT_FOLDER = """
import os, signal, sys
from pathlib import Path
from envs.files import new_folder
rename = os.rename
def late(old, new):
    if sys.argv[1] == "swap" and Path(old).name == "new" and not os.path.lexists(new):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(old, new)
os.rename = late
with new_folder(Path(sys.argv[2]), lambda path: True) as new:
    (new / "part").write_text("newer")
    if sys.argv[1] == "write":
        os.kill(os.getpid(), signal.SIGKILL)
    print("at work", flush=True)
    if sys.argv[1] == "wait":
        sys.stdin.read()
"""


def cut(step: str, folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CUT_FOLDER, step, str(folder)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hidden(place: Path) -> list[Path]:
    return sorted(place.glob(f"{UNFINISHED}*"))


def write(folder: Path, fail: bool = False) -> None:
    with new_folder(folder, lambda path: True) as new:
        if fail:
            raise OSError("full")
        (new / "part").write_text("last")


def test_what_a_killed_process_left_goes_when_the_folder_is_written_again(tmp_path: Path) -> None:
    folder, other = tmp_path / "a", tmp_path / "b"
    for place in (folder, folder, other):
        assert cut("write", place).wait() == -signal.SIGKILL
    assert len(hidden(tmp_path)) == 2  # the second of `a` has removed the first
    write(folder)
    (left,) = hidden(tmp_path)  # of `b`
    write(other)
    assert not left.exists() and sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_an_older_folder_stays_until_a_newer_one_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "part").write_text("older")
    assert cut("swap", folder).wait() == -signal.SIGKILL
    with pytest.raises(OSError, match="full"):
        write(folder, fail=True)
    (left,) = hidden(tmp_path)
    assert (left / "old" / "part").read_text() == "older" and not folder.exists()
    write(folder)
    assert os.listdir(tmp_path) == ["a"] and (folder / "part").read_text() == "last"


def test_what_a_process_is_writing_stays(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    process = cut("wait", folder)
    try:
        assert process.stdout.readline() == "at work\n"
        write(folder)
        assert len(hidden(tmp_path)) == 1 and (folder / "part").read_text() == "last"
        process.communicate("", timeout=60)
        assert process.returncode == 0
        assert os.listdir(tmp_path) == ["a"] and (folder / "part").read_text() == "newer"
    finally:
        process.kill()
        process.wait()
