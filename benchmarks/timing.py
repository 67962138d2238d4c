"""Where the time of code goes that is called from elsewhere."""

from __future__ import annotations

import time
from typing import Any

SPENT: dict[str, float] = {}  # seconds in this process, for those who count in one process and ask from another


def count_seconds(owner: Any, method: str, spent: dict[str, float], key: str) -> None:
    """Add the seconds of each call of a class's or an object's method to `spent[key]` from now on."""
    plain = getattr(owner, method)

    def counted(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return plain(*args, **kwargs)
        finally:
            spent[key] += time.perf_counter() - began

    setattr(owner, method, counted)
