"""Work for several processes at a time, as Ray tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from envs.errors import RLMBAError

RETRIES = 3  # times that a task is started again after its process died

_TICK = 0.5  # seconds between calls of `tick`
T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """The processes that tasks run in, and what messages say of them."""

    at_once: int  # jobs under way at a time
    patience_s: float = math.inf  # without any result for so long, jobs under way are given to others once more
    name: str = "worker process"
    if_they_die: str = "try fewer workers"  # what a message advises
    if_they_hang: str = "see whether they hang"


def remote_task(function: Callable[..., Any], gpus: float = 0) -> Any:
    """A function as a Ray task on one core and a share of the GPUs."""
    return ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(function)


def cores() -> int:
    """How many tasks the running Ray can work on side by side."""
    return max(int(ray.cluster_resources().get("CPU", 1)), 1)


def in_parallel(
    jobs: Iterable[T],
    submit: Callable[[T], ray.ObjectRef],
    workers: Workers,
    tick: Callable[[], object] = lambda: None,
) -> Generator[tuple[T, Any], None, None]:
    """Run jobs as Ray tasks and yield each with its result as it ends.

    Tasks that still run when the caller stops, for whatever reason, are cancelled; hence close the iterator.

    Args:
        submit: starts the task of a job; called for the same job once more where the workers seem to hang.
        tick: called at least twice a second while nothing ends.

    Raises:
        RLMBAError: that of a task; where its process died again and again; where no worker gave a result for twice
            their patience.
    """
    waiting = enumerate(jobs)
    under_way: dict[int, T] = {}
    running: dict[ray.ObjectRef, int] = {}  # numbers of the jobs; twice where a job was given to others once more
    overdue = False
    try:
        while True:
            for number, job in islice(waiting, workers.at_once - len(under_way)):
                under_way[number] = job
                running[submit(job)] = number
            if not under_way:
                return
            ended = _first_to_end(list(running), workers.patience_s, tick)
            if ended is None and overdue:
                raise RLMBAError(
                    f"No {workers.name} has given a result for {2 * workers.patience_s:g} s; {workers.if_they_hang}."
                )
            overdue = ended is None
            if ended is None:  # one of them may hang: whoever is free does its work, too
                running |= {submit(job): number for number, job in under_way.items()}
                continue
            number, result = running.pop(ended), _result(ended, workers)
            late = [task for task, other in running.items() if other == number]
            _cancel(late)
            for task in late:
                del running[task]
            yield under_way.pop(number), result
            tick()
    finally:
        _cancel(running)


def _first_to_end(tasks: list[ray.ObjectRef], patience_s: float, tick: Callable[[], object]) -> ray.ObjectRef | None:
    """A task that has ended; None where none ends in time."""
    until = time.monotonic() + patience_s
    while (left := until - time.monotonic()) > 0:
        ended, _ = ray.wait(tasks, timeout=min(_TICK, left))
        if ended:
            return ended[0]
        tick()
    return None


def _result(task: ray.ObjectRef, workers: Workers) -> Any:
    """What a task that ended gives; errors of ours as they were raised, what befell its process in words."""
    try:
        return ray.get(task)
    except RayTaskError as error:
        if isinstance(error.cause, RLMBAError):
            raise error.cause from None
        raise
    except RayError as error:
        first = str(error).strip().splitlines()[0]
        raise RLMBAError(f"A {workers.name} ended early ({first}); {workers.if_they_die}.") from error


def _cancel(tasks: Iterable[ray.ObjectRef]) -> None:
    for task in tasks:
        ray.cancel(task, force=True)
