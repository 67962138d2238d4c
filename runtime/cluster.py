"""Ray, started quietly and stopped by whoever started it."""

from __future__ import annotations

import errno
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import ray
import torch
from ray._private import ray_constants
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from safetensors import SafetensorError

from envs.errors import ConfigError, RLMBAError

# One thread per process: several processes share the cores, and threads on top of them only wait for each other.
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_ENDED = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError, ObjectLostError)
_REPOSITORY = Path(__file__).resolve().parent.parent


@contextmanager
def local_ray(processes: int) -> Iterator[None]:
    """A running Ray: the one that is there or that RAY_ADDRESS names, else one of our own for the time of the block.

    Args:
        processes: how many must run side by side; more than there are cores share them instead of waiting for ever.
    """
    for name in ("ray.rllib", "ray.tune", "ray._common.deprecation"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ours = not ray.is_initialized()
    if ours:
        paths = [str(_REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]  # workers import this package
        address = os.environ.get("RAY_ADDRESS")
        own = {"num_cpus": max(processes, os.cpu_count() or 1), "include_dashboard": False}
        with nullcontext() if address else _on_this_machine_alone():
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(paths)}},
                **({} if address else own),
            )
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def _on_this_machine_alone() -> Iterator[None]:
    """Let a Ray that starts in the block listen on 127.0.0.1 only, as it does on macOS and Windows.

    On Linux it would listen on every address, and it makes the network's of 127.0.0.1 where `ray.init` is given that.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def faults_in_words(folder: Path) -> Iterator[None]:
    """RLMBAError for what a machine does to a run: a full or broken disk, a process or a whole machine that died.

    What a process raised of ours comes out as it was raised there, without the traceback that Ray adds.
    """
    resume = "The last checkpoint is whole: --resume goes on from there."
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, RLMBAError):
            raise error.cause from None
        raise
    except _ENDED as error:
        first = str(error).strip().splitlines()[0]
        raise RLMBAError(f"A process of the run {folder} ended early ({first}). {resume}") from error
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno not in _DISK:
            raise
        raise RLMBAError(f"Cannot write into {folder}: {error}. Make room there. {resume}") from error


def check_gpus(wanted: float) -> None:
    """Raise ConfigError where a run of our own would wait for ever for GPUs that this machine does not have."""
    if ray.is_initialized() or os.environ.get("RAY_ADDRESS"):
        return  # a cluster may still grow
    found = torch.cuda.device_count()
    if wanted > found:
        raise ConfigError(f"The run asks for {wanted:g} GPUs and this machine has {found}; ask for fewer.")


@contextmanager
def held_back_errors() -> Iterator[None]:
    """Hold back what is written to standard error, native code included; show it if the block fails.

    RLlib hands runners its configuration by reference and keeps that reference alive; Ray's core calls it an error all
    the same, past every log level.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        kept = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
