"""What a machine does to a run, in words."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError, WorkerCrashedError

from envs.errors import ConfigError, RLMBAError
from runtime.cluster import faults_in_words

FOLDER = Path("/runs/one")


def remote(cause: Exception) -> Exception:
    """What `ray.get` raises where a task raised `cause`."""
    return RayTaskError("play", "a traceback", cause).as_instanceof_cause()


@pytest.mark.parametrize("fault", [RayActorError(), WorkerCrashedError(), OutOfMemoryError("It ate all\nof it.")])
def test_a_process_that_ended_is_named_with_its_run(fault: Exception) -> None:
    says = r"process of the run /runs/one ended early \([^\n]+\)\. .*--resume"
    with pytest.raises(RLMBAError, match=says), faults_in_words(FOLDER):
        raise fault


def test_a_full_disk_is_named_with_its_run() -> None:
    says = r"Cannot write into /runs/one: .*No space left.*--resume"
    with pytest.raises(RLMBAError, match=says), faults_in_words(FOLDER):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_what_a_process_raises_of_ours_comes_without_its_traceback() -> None:
    with pytest.raises(ConfigError) as caught, faults_in_words(FOLDER):
        raise remote(ConfigError("starts is 0."))
    assert type(caught.value) is ConfigError
    assert str(caught.value) == "starts is 0."


@pytest.mark.parametrize("bug", [remote(ZeroDivisionError()), ZeroDivisionError(), FileNotFoundError(2, "no file")])
def test_a_bug_stays_one(bug: Exception) -> None:
    with pytest.raises(type(bug)) as caught, faults_in_words(FOLDER):
        raise bug
    assert caught.value is bug
