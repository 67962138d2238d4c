"""The run folder: a kill at any moment leaves something whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from envs.errors import ConfigError
from envs.files import UNFINISHED
from learners.run_folder import KEPT_CHECKPOINTS, RunFolder
from tests.support.paths import ROOT


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    return folder


def save(text: str):
    def write(folder: str) -> None:
        assert Path(folder).is_absolute()
        (Path(folder) / "weights").write_text(text)

    return write


def row(iteration: int, **more: object) -> dict[str, object]:
    """What every algorithm says of an iteration."""
    return {"iteration": iteration, "episodes": 8 * iteration, "seconds": 0.5, "aulc": 0.6} | more


def names(run: RunFolder) -> list[str]:
    return [p.name for p in run.finished_checkpoints()]


def test_checkpoints_appear_under_their_number(run: RunFolder) -> None:
    assert names(run) == []
    path = run.save_checkpoint(7, save("seven"))
    assert path == run.checkpoints / "000007"
    assert [p.name for p in run.checkpoints.iterdir()] == ["000007"]  # renamed, not copied
    assert (path / "weights").read_text() == "seven"
    run.save_checkpoint(7, save("again"))
    assert names(run) == ["000007"]
    assert (path / "weights").read_text() == "again"


def test_a_checkpoint_that_fails_leaves_the_older_ones(run: RunFolder) -> None:
    run.save_checkpoint(1, save("one"))
    run.save_checkpoint(2, save("two"))

    def fail(folder: str) -> None:
        (Path(folder) / "weights").write_text("half")
        raise OSError("disk full")

    for iteration in (2, 3):  # also where an older one of that number stands
        with pytest.raises(OSError, match="disk full"):
            run.save_checkpoint(iteration, fail)
        assert names(run) == ["000001", "000002"]
    assert (run.checkpoints / "000002" / "weights").read_text() == "two"
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["000001", "000002"]
    path = run.save_checkpoint(3, save("three"))
    assert [p.name for p in path.iterdir()] == ["weights"]
    assert names(run) == ["000001", "000002", "000003"]


def test_a_process_killed_while_it_saves_leaves_the_older_ones(run: RunFolder) -> None:
    run.save_checkpoint(1, save("one"))
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from learners.run_folder import RunFolder\n"
        "def save(folder):\n"
        "    (Path(folder) / 'weights').write_text('half')\n"
        "    os._exit(9)\n"
        "RunFolder(sys.argv[1]).save_checkpoint(2, save)\n"
    )
    run.write_text(run.config, "seed: 1\n")
    assert in_another_process(code, run).returncode == 9
    assert names(run) == ["000001"]
    assert len(list(run.checkpoints.iterdir())) == 2
    run.lock()  # nobody else writes here now
    assert len(list(run.checkpoints.iterdir())) == 1
    run.save_checkpoint(2, save("two"))
    assert names(run) == ["000001", "000002"]
    run.release()


def test_the_last_three_are_kept(run: RunFolder) -> None:
    assert KEPT_CHECKPOINTS == 3
    for iteration in (2, 9, 10, 11, 100):
        run.save_checkpoint(iteration, save(str(iteration)))
    assert names(run) == ["000010", "000011", "000100"]
    assert (run.checkpoints / "000010" / "weights").read_text() == "10"


def test_history_drops_what_a_kill_cut_short(run: RunFolder) -> None:
    assert run.read_history() == []
    for i in range(4):
        run.append_history(row(i, reward=i / 2))
    with run.history.open("a") as stream:
        stream.write('{"iteration": 4, "rew')  # no end of line either
    assert [r["iteration"] for r in run.read_history()] == [0, 1, 2, 3]
    assert [r["iteration"] for r in run.read_history(until=1)] == [0, 1]
    rows = run.truncate_history(2)
    assert [r["iteration"] for r in rows] == [0, 1, 2]
    assert rows[2]["reward"] == 1.0
    run.append_history(row(3, reward=-1.0))
    assert [r["reward"] for r in run.read_history()] == [0.0, 0.5, 1.0, -1.0]


def test_history_of_nothing_can_be_truncated(run: RunFolder) -> None:
    assert run.truncate_history(5) == []
    run.append_history(row(0))
    assert run.read_history() == [row(0)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"iteration": None}, "row 2 has None for 'iteration'"),
        ({"iteration": 1.5}, "1.5 for 'iteration'"),
        ({"seconds": "1"}, "'1' for 'seconds'"),
        ({"aulc": None}, "None for 'aulc'"),
        ({"aulc_minus/badge": [1]}, "[1] for 'aulc_minus/badge'"),
    ],
)
def test_history_of_something_else_is_refused(change: dict, words: str, run: RunFolder) -> None:
    run.append_history(row(1))
    run.append_history(row(2) | change)
    with pytest.raises(ConfigError, match=re.escape(words)):
        run.read_history()


def test_text_is_written_whole(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not run.is_run()
    run.write_text(run.config, "seed: 1\n")
    assert run.is_run()

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        run.write_text(run.config, "seed: 2\n")
    assert run.config.read_text() == "seed: 1\n"


def in_another_process(code: str, run: RunFolder) -> subprocess.CompletedProcess:
    root = str(ROOT)
    environment = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code, str(run.root)], capture_output=True, text=True, env=environment)


TRY_LOCK = (
    "import sys\n"
    "from envs.errors import ConfigError\n"
    "from learners.run_folder import RunFolder\n"
    "try:\n"
    "    RunFolder(sys.argv[1]).lock()\n"
    "    print('got it')\n"
    "except ConfigError as error:\n"
    "    print('refused:', error)\n"
)


def test_a_second_process_is_refused_until_the_first_lets_go(run: RunFolder) -> None:
    run.lock()
    refused = in_another_process(TRY_LOCK, run).stdout
    assert refused.startswith("refused:")
    assert str(run.root) in refused
    assert "in use" in refused
    run.release()
    assert in_another_process(TRY_LOCK, run).stdout == "got it\n"
    run.lock()  # a process that ended holds nothing
    run.release()


def test_a_second_holder_in_the_same_process_is_refused(run: RunFolder) -> None:
    run.lock()
    with pytest.raises(ConfigError, match="in use by another run"):
        RunFolder(run.root).lock()
    run.release()


def test_a_folder_is_vacant_until_a_run_writes_into_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert run.is_vacant()
    run.lock()
    run.release()
    assert run.is_vacant()
    (run.root / f"{UNFINISHED}0123").write_text("se")  # a process killed while it began
    assert run.is_vacant()
    run.write_text(run.config, "seed: 0")  # a run that ended before its first iteration did
    run.tensorboard.mkdir()
    assert run.is_vacant()
    (run.root / ".lock").unlink()
    assert not run.is_vacant()  # settings that somebody wrote
    run.lock()
    run.release()
    run.append_history(row(1))
    assert not run.is_vacant()


def test_a_lock_leaves_what_others_write_aside(tmp_path: Path) -> None:
    """The folder is no run's: somebody named a wrong --out."""
    (tmp_path / f"{UNFINISHED}0123").write_text("half")
    run = RunFolder(tmp_path)
    run.lock()
    run.release()
    assert (tmp_path / f"{UNFINISHED}0123").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Cannot write into"):
        RunFolder(tmp_path / "file" / "run").lock()
    assert not RunFolder(tmp_path / "file").is_vacant()
