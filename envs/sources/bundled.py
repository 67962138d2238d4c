"""The small real data sets that come with the code; `build_bundled` made them.

| name     | samples | modalities                                | classes | divided by   |
|----------|---------|-------------------------------------------|---------|--------------|
| `emoji`  | 1,600   | image, text (the Unicode name)            | 8       | base emoji   |
| `watch`  | 2,369   | accelerometer, gyroscope                  | 7       | subject      |
| `digits` | 2,000   | six descriptions of a handwritten digit   | 10      | row          |
"""

from __future__ import annotations

from pathlib import Path

from envs.errors import DataError, nearest
from envs.pools import Pool, load_pool

BUNDLED = ("emoji", "watch", "digits")
DATA = Path(__file__).parent / "data"


def load_bundled(name: str) -> Pool:
    """Load a bundled data set (features memory-mapped).

    Raises:
        DataError: if there is none of that name, or its files are missing or damaged.
    """
    if name not in BUNDLED:
        raise DataError(f"Unknown bundled data set '{name}'.{nearest(name, BUNDLED)}")
    return load_pool(DATA / name)
