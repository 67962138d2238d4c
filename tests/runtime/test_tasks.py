"""Jobs in real Ray processes: done once each, and what happens where one fails, dies or hangs.

What runs in a process is nested in its test: Ray then sends it along, and need not import this file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import GetTimeoutError, RayTaskError, TaskCancelledError, WorkerCrashedError

from envs.errors import ConfigError, RLMBAError
from runtime.tasks import RETRIES, Workers, cores, in_parallel, remote_task

PLAYERS = Workers(2, patience_s=0.5, name="player", if_they_die="try fewer of them", if_they_hang="see why")
PATIENT = Workers(2, name="player", if_they_die="try fewer of them")


def _nested() -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        time.sleep(seconds)

    return sleep


sleep = _nested()


@pytest.fixture(scope="module", autouse=True)
def two_processes(one_ray: None) -> None:
    ray.get([remote_task(sleep).remote(0.2) for _ in range(2)])  # both have started


def run(function: Callable[..., Any], jobs: list[Any], workers: Workers, started: list[Any] | None = None) -> Iterator:
    """`in_parallel` of a function on each job; `started` receives the tasks."""
    task = remote_task(function)
    kept = [] if started is None else started

    def submit(job: Any) -> ray.ObjectRef:
        kept.append(task.remote(job))
        return kept[-1]

    return in_parallel(jobs, submit, workers)


def was_cancelled(task: ray.ObjectRef) -> bool:
    try:
        ray.get(task, timeout=60)
    except GetTimeoutError:
        return False
    except (TaskCancelledError, WorkerCrashedError):
        return True
    return False


def times_called(mark: Path) -> int:
    return len(list(mark.parent.glob(f"{mark.name}-*")))


def test_every_job_is_done_once_and_so_many_at_a_time() -> None:
    started: list[ray.ObjectRef] = []
    jobs = [None, 3, 0, 2, 1, 1]  # None is a job like any other
    done = []
    for number, (job, result) in enumerate(run(lambda job: (job, job and job**2), jobs, Workers(2), started), 1):
        assert result == (job, job and job**2)
        assert len(started) <= number + 1
        done.append(job)
    assert sorted(done, key=str) == sorted(jobs, key=str)
    assert len(started) == len(jobs)
    assert list(run(sleep, [], Workers(2))) == []


def test_a_quick_job_does_not_wait_for_a_slow_one(tmp_path: Path) -> None:
    def play(job: str) -> None:
        while job == "slow" and not (tmp_path / "enough").exists():
            time.sleep(0.05)

    played = []
    for job, _ in run(play, ["slow", "quick", "quick too"], Workers(2)):
        played.append(job)
        if len(played) == 2:
            (tmp_path / "enough").touch()
    assert played == ["quick", "quick too", "slow"]


def test_the_caller_hears_of_time_that_passes(tmp_path: Path) -> None:
    ticks: list[float] = []

    def wait(job: Path) -> None:
        while not job.exists():
            time.sleep(0.05)

    def tick() -> None:
        ticks.append(time.monotonic())
        if len(ticks) == 3:
            (tmp_path / "enough").touch()

    jobs = [tmp_path / "enough"]
    assert list(in_parallel(jobs, remote_task(wait).remote, Workers(1), tick)) == [(jobs[0], None)]
    assert len(ticks) >= 3


def test_tasks_are_cancelled_where_the_caller_stops() -> None:
    started: list[ray.ObjectRef] = []
    with (
        pytest.raises(ZeroDivisionError),
        closing(run(sleep, [0.0, 600.0, 600.0], Workers(2), started)) as results,
    ):
        for _ in results:
            1 / 0  # noqa: B018
    assert len(started) == 2
    assert was_cancelled(started[1])


def test_an_error_of_ours_arrives_as_it_was_raised_and_a_bug_with_its_traceback() -> None:
    def refuse(job: int) -> None:
        raise ConfigError(f"job {job} cannot be.")

    with pytest.raises(RLMBAError) as caught:
        list(run(refuse, [7], Workers(1)))
    assert type(caught.value) is ConfigError
    assert str(caught.value) == "job 7 cannot be."
    with pytest.raises(ZeroDivisionError, match="in <lambda>") as bug:
        list(run(lambda job: 1 / job, [0], Workers(1)))
    assert isinstance(bug.value, RayTaskError)


def test_a_process_that_dies_is_replaced(tmp_path: Path) -> None:
    def die_once(mark: Path) -> str:
        first = not list(mark.parent.glob(f"{mark.name}-*"))
        Path(f"{mark}-{time.monotonic_ns()}").touch()
        if first:
            os._exit(1)
        return "survived"

    assert [result for _, result in run(die_once, [tmp_path / "call"], PATIENT)] == ["survived"]
    assert times_called(tmp_path / "call") == 2


def test_a_process_that_always_dies_is_said_in_words(tmp_path: Path) -> None:
    def die(mark: Path) -> None:
        Path(f"{mark}-{time.monotonic_ns()}").touch()
        os._exit(1)

    with pytest.raises(RLMBAError, match=r"^A player ended early \([^\n]+\); try fewer of them\.$"):
        list(run(die, [tmp_path / "call"], PATIENT))
    assert times_called(tmp_path / "call") == 1 + RETRIES


def test_what_hangs_is_done_by_somebody_else(tmp_path: Path) -> None:
    def hang_once(mark: Path) -> str:
        if mark.name == "other":
            return "other"
        first = not list(mark.parent.glob(f"{mark.name}-*"))
        Path(f"{mark}-{time.monotonic_ns()}").touch()
        if first:
            time.sleep(600)
        return "done"

    started: list[ray.ObjectRef] = []
    workers = Workers(1, patience_s=5.0)
    jobs = [tmp_path / "call", tmp_path / "other"]
    assert dict(run(hang_once, jobs, workers, started)) == {jobs[0]: "done", jobs[1]: "other"}
    assert times_called(tmp_path / "call") == 2
    assert was_cancelled(started[0])  # nobody waits for it any more


def test_if_all_hang_it_is_said_in_words() -> None:
    started: list[ray.ObjectRef] = []
    with pytest.raises(RLMBAError, match=r"^No player has given a result for 1 s; see why\.$"):
        list(run(sleep, [600, 601, 602], PLAYERS, started))
    assert len(started) == 4  # two jobs, once more each; the third had no chance
    assert all(map(was_cancelled, started))


def test_tasks_may_run_tasks() -> None:
    """As baselines do in the trials of a sweep: who waits leaves its core to those whom it waits for."""

    def square(job: int) -> int:
        return job**2

    def sum_of_squares(job: int) -> int:
        return sum(result for _, result in in_parallel(range(job), remote_task(square).remote, Workers(cores())))

    outer = dict(run(sum_of_squares, [3, 4, 5, 6], Workers(cores())))
    assert outer == {3: 5, 4: 14, 5: 30, 6: 55}
