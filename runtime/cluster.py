"""Ray, started quietly and stopped by whoever started it."""

from __future__ import annotations

import errno
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
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
from runtime.progress import Progress
from runtime.ray_start import joined_ray, own_ray

# One thread per process: several processes share the cores, and threads on top of them only wait for each other.
_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_ENDED = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError, ObjectLostError)
_REPOSITORY = Path(__file__).resolve().parent.parent


@contextmanager
def local_ray(processes: int, say: Callable[[str], Any] | None = None) -> Iterator[None]:
    """A running Ray: the one that is there or that RAY_ADDRESS names, else one of our own for the time of the block.

    Every command that needs Ray comes through here. What a start needs is looked at before; a start of our own that
    fails, as it may on a busy machine, is tried again.

    Args:
        processes: how many must run side by side; more than there are cores share them instead of waiting for ever.
        say: shows a line while a start takes long; that of a `Progress` without it.

    Raises:
        ConfigError: where the Ray that RAY_ADDRESS names does not answer, or none of our own can start; in words.
    """
    for name in ("ray.rllib", "ray.tune", "ray._common.deprecation"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "").strip()
    paths = [str(_REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]  # workers import this package
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(paths)}},
    }
    if address and address != "local":
        cluster = joined_ray(address, options)
    else:
        own = {"num_cpus": max(processes, os.cpu_count() or 1), "include_dashboard": False}
        cluster = own_ray(options | own, say or Progress().say)
    with cluster:
        yield


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
