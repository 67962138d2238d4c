"""How much memory a piece of work needs for itself, where the system tells."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_RESET_PEAK = Path("/proc/self/clear_refs")


def with_peak_memory(work: Callable[[], T]) -> tuple[T, float]:
    """Do some work and measure it.

    Memory that the process holds free is given back first: work that fits into it would seem to need none.

    Returns:
        what `work` returns, and by how many bytes the process grew at most meanwhile; NaN where the system does
        not say (anything but Linux, and containers that hide it).
    """
    before = _begin()
    result = work()
    peak = _status("VmHWM")
    return result, float("nan") if before is None or peak is None else float(max(peak - before, 0))


def _begin() -> int | None:
    """Resident bytes, from which the peak is counted anew."""
    if not sys.platform.startswith("linux"):
        return None
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc only
    if trim is not None:
        trim(0)
    try:
        _RESET_PEAK.write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> int | None:
    """An entry of the process's status in bytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)
