"""Copies of run folders: what arrives, what survives a cut, what cannot be written."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import fsspec
import pytest
import yaml

from envs.errors import ConfigError
from learners import storage
from learners.run_folder import RunFolder
from learners.storage import RunCopy
from policies.policy_file import load_policy
from run import main
from tests.support.sweeps import TINY
from tests.support.training import command, run, train_command


def iterate(folder: RunFolder, number: int, size: int = 100) -> None:
    """What training does in an iteration."""
    folder.append_history({"iteration": number, "episodes": number, "seconds": 1.0, "aulc": 0.5})
    folder.save_checkpoint(number, lambda aside: (Path(aside) / "state").write_bytes(bytes([number]) * size))


def begun(root: Path) -> RunFolder:
    folder = RunFolder(root)
    folder.write_text(folder.config, "seed: 1\n")
    return folder


@pytest.fixture(params=["folder", "fsspec"])
def place(request, tmp_path) -> str:
    """A storage that pyarrow serves, and one that fsspec does."""
    if request.param == "folder":
        return str(tmp_path / "shared")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    return "memory://bucket/runs"


def test_a_run_goes_on_elsewhere(place, tmp_path):
    here = begun(tmp_path / "a" / "emoji")
    copy = RunCopy(place, here)
    copy.refuse_other_run()
    for number in range(1, 6):
        iterate(here, number)
        copy.send()
    assert copy.complete() == ["000003", "000004", "000005"]
    with pytest.raises(ConfigError, match="holds a run already"):
        RunCopy(place, here).refuse_other_run()

    there = RunFolder(tmp_path / "b" / "emoji")
    RunCopy(place, there).fetch()
    assert there.config.read_text() == "seed: 1\n"
    assert [row["iteration"] for row in there.read_history()] == [1, 2, 3, 4, 5]
    assert [p.name for p in there.finished_checkpoints()] == copy.complete()
    assert (there.finished_checkpoints()[-1] / "state").read_bytes() == bytes([5]) * 100
    names = {p.relative_to(there.root).as_posix() for p in there.root.rglob("*") if p.is_file()} - {".lock"}
    assert names == {p.relative_to(here.root).as_posix() for p in here.root.rglob("*") if p.is_file()}

    # The first machine has not heard of what the second one did since.
    again = RunCopy(place, there)
    iterate(there, 6)
    again.finish()
    RunCopy(place, here).fetch()
    assert here.finished_checkpoints()[-1].name == "000006"
    # And a folder that is ahead of the copy stays as it is.
    iterate(here, 7)
    RunCopy(place, here).fetch()
    assert here.finished_checkpoints()[-1].name == "000007" and len(here.read_history()) == 7


@pytest.mark.parametrize("cut", range(5))
def test_a_copy_that_was_cut_short_is_whole_up_to_the_iteration_before(place, tmp_path, monkeypatch, cut):
    """The process ends after any number of writes."""
    here = begun(tmp_path / "a" / "emoji")
    copy = RunCopy(place, here)
    for number in (1, 2, 3):
        iterate(here, number)
        copy.send()
    iterate(here, 4)
    written, write = [], RunCopy._write

    def limited(self: RunCopy, name: str, content: bytes) -> None:
        if len(written) >= cut:
            raise OSError("no space left")
        written.append(name)
        write(self, name, content)

    monkeypatch.setattr(storage, "CONNECTIONS", 1)
    monkeypatch.setattr(RunCopy, "_write", limited)
    copy.send()
    monkeypatch.undo()
    there = RunFolder(tmp_path / "b" / "emoji")
    RunCopy(place, there).fetch()
    last = int(there.finished_checkpoints()[-1].name)
    assert last == (4 if storage.MARKER in written else 3)
    assert (there.finished_checkpoints()[-1] / "state").read_bytes() == bytes([last]) * 100
    assert [row["iteration"] for row in there.truncate_history(last)] == list(range(1, last + 1))


def test_a_fetch_that_was_cut_short_is_repeated(place, tmp_path, monkeypatch):
    here = begun(tmp_path / "a" / "emoji")
    copy = RunCopy(place, here)
    iterate(here, 1)
    copy.send()
    there = RunFolder(tmp_path / "b" / "emoji")
    monkeypatch.setattr(RunFolder, "save_checkpoint", lambda *given: (_ for _ in ()).throw(OSError("connection lost")))
    with pytest.raises(ConfigError, match="connection lost"):
        RunCopy(place, there).fetch()
    assert not there.is_run()
    monkeypatch.undo()
    RunCopy(place, there).fetch()
    assert there.is_run() and there.finished_checkpoints() and not (there.root / storage.MARKER).exists()


def test_only_what_is_new_is_sent(place, tmp_path, monkeypatch):
    here = begun(tmp_path / "emoji")
    copy = RunCopy(place, here)
    iterate(here, 1)
    copy.send()
    sent: list[str] = []
    write = RunCopy._write
    monkeypatch.setattr(RunCopy, "_write", lambda self, name, data: (sent.append(name), write(self, name, data)))
    copy.send()
    assert sent == [storage.MARKER]
    iterate(here, 2)
    copy.send()
    assert sorted(sent[1:]) == ["checkpoints/000002/state", storage.MARKER, "history.jsonl"]


def test_a_storage_that_is_away_for_a_while(place, tmp_path, monkeypatch, capsys):
    here = begun(tmp_path / "emoji")
    copy = RunCopy(place, here)
    away = pytest.MonkeyPatch()
    away.setattr(RunCopy, "_write", lambda *given: (_ for _ in ()).throw(OSError("no route to host")))
    iterate(here, 1)
    copy.send()
    iterate(here, 2)
    copy.send()
    assert capsys.readouterr().err.count("no route to host") == 1
    with pytest.raises(ConfigError, match=r"emoji is whole.*--resume"):
        copy.finish()
    away.undo()
    copy.finish()
    assert copy.complete() == ["000001", "000002"]


@pytest.mark.parametrize("url", ["nowhere://bucket", "/dev/null/shared", "file:///proc/shared"])
def test_mistakes_are_said(tmp_path, url):
    with pytest.raises(ConfigError, match=url):
        RunCopy(url, RunFolder(tmp_path / "out"))


def test_mistakes_are_said_before_work_starts(tmp_path, capsys):
    _, _, *arguments = train_command(tmp_path / "out", "--storage", "/dev/null/shared")
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: Cannot write into the storage /dev/null/shared/out")
    assert not (tmp_path / "out").exists()


def test_another_folder_is_not_overwritten(tmp_path):
    here = begun(tmp_path / "a" / "emoji")
    copy = RunCopy(str(tmp_path / "shared"), here)
    iterate(here, 1)
    copy.send()
    (tmp_path / "b" / "emoji").mkdir(parents=True)
    (tmp_path / "b" / "emoji" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="not empty"):
        RunCopy(str(tmp_path / "shared"), RunFolder(tmp_path / "b" / "emoji")).fetch()


@pytest.mark.slow
def test_training_resumes_from_the_storage(tmp_path):
    shared, out = tmp_path / "shared", tmp_path / "machine" / "emoji"
    two = ("--storage", str(shared), "--set", "learner.iterations=2")
    assert run(train_command(out, *two)).returncode == 0
    copied = shared / "emoji"
    assert list(copied.glob("tensorboard/events*")) and (copied / "learning_curve.png").is_file()
    assert load_policy(copied)[1].episodes == load_policy(out)[1].episodes > 0
    again = run(train_command(tmp_path / "other" / "emoji", *two))
    assert again.returncode == 2 and "holds a run already" in again.stderr

    shutil.rmtree(out)
    settings = (copied / "config.yaml").read_text().replace("iterations: 2", "iterations: 3")
    (copied / "config.yaml").write_text(settings)  # a run that was to take longer
    done = run(train_command(out, "--storage", str(shared), "--resume"))
    assert done.returncode == 0, done.stderr
    history = [json.loads(line) for line in (copied / "history.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in history] == [1, 2, 3]
    assert load_policy(copied)[1].episodes == history[-1]["episodes"]


@pytest.mark.slow
def test_a_sweep_resumes_from_the_storage(tmp_path):
    """The driver is killed and its folder lost."""
    file, out, shared = tmp_path / "sweep.yaml", tmp_path / "out", tmp_path / "shared"
    file.write_text(yaml.safe_dump(TINY))
    driver = subprocess.Popen(
        command("tune", "--config", file, "--out", out, "--storage", shared),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = []
    for line in driver.stdout:
        said.append(line)
        if "2 of 4 ended" in line:
            break
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {path.name for path in (shared / "out" / "trials").iterdir()}
    assert len(before) >= 2, said
    shutil.rmtree(out)
    done = run(command("tune", "--out", out, "--storage", shared, "--resume"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads((shared / "out" / "pareto.json").read_text())["trials"]) == 4
    # A trial that had only begun when the driver was killed may have left a folder under a name that Tune forgot.
    after = {path.name for path in (shared / "out" / "trials").iterdir()}
    assert before <= after and len(after) >= 4
    assert all(load_policy(shared / "out" / "trials" / name)[1].episodes for name in after)
