"""The memory that a piece of work needs for itself."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from runtime import memory
from runtime.memory import with_peak_memory

MB = 1_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
def test_the_peak_is_seen_although_it_is_given_back() -> None:
    held = np.ones(50 * MB // 8)  # there before: does not count

    def work() -> float:
        part = np.ones(200 * MB // 8)
        total = part.sum()
        del part
        return total + np.ones(40 * MB // 8).sum()

    result, peak = with_peak_memory(work)
    assert result == 30 * MB
    assert 190 * MB < peak < 230 * MB
    _, little = with_peak_memory(lambda: np.ones(4 * MB // 8))
    assert 3 * MB < little < 20 * MB  # an earlier peak does not stick
    assert held.sum() == 50 * MB // 8


def test_elsewhere_it_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(memory, "_RESET_PEAK", tmp_path / "no" / "file")
    result, peak = with_peak_memory(lambda: 7)
    assert result == 7
    assert math.isnan(peak)
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert math.isnan(with_peak_memory(lambda: 7)[1])
