"""Where pools come from: bundled data sets, a generator, files."""

from __future__ import annotations

import os
from pathlib import Path

from envs.errors import DataError, nearest
from envs.pool import Pool, load_pool
from envs.sources.bundled import BUNDLED, load_bundled
from envs.sources.synthetic import make_synthetic, parse_spec

__all__ = ["absolute_name", "dataset_names", "open_dataset", "split_names"]

_SYNTHETIC = "synthetic"


def dataset_names() -> list[str]:
    """Names that `open_dataset` knows without any file of the user's."""
    return [*BUNDLED, _SYNTHETIC]


def open_dataset(name_or_path: str | os.PathLike[str]) -> Pool:
    """Open a data set by name or path.

    Args:
        name_or_path: a bundled name, ``synthetic`` or ``synthetic:noise=0.3,imbalance=20,seed=1``
            (see `SyntheticSpec`), or a path to a pool folder or ``.npz``. A name wins over a
            folder of the same name; write ``./emoji`` for the folder.

    Raises:
        DataError: if there is no such data set or path, or its content is broken.
        ConfigError: on bad parameters of ``synthetic``.
    """
    name = os.fspath(name_or_path)
    if isinstance(name_or_path, str):
        if name in BUNDLED:
            return load_bundled(name)
        kind, _, parameters = name.partition(":")
        if kind == _SYNTHETIC:
            return make_synthetic(parse_spec(parameters))
    if Path(name).exists() or Path(name).suffix == ".npz" or Path(name).name != name:
        return load_pool(name)
    names = dataset_names()
    raise DataError(
        f"Unknown data set '{name}'.{nearest(name, names)} Data sets: {', '.join(names)}; or the "
        "path of a pool folder or a .npz file."
    )


def split_names(text: str) -> list[str]:
    """Data sets of a comma-separated list; the commas between the parameters of ``synthetic:a=1,b=2`` do not count."""
    names: list[str] = []
    for part in text.split(","):
        if names and names[-1].startswith(f"{_SYNTHETIC}:") and "=" in part and ":" not in part.partition("=")[0]:
            names[-1] += f",{part}"
        else:
            names.append(part.strip())
    return [name for name in names if name]


def absolute_name(name: str) -> str:
    """The name, or the absolute path where it is one: processes elsewhere have other working directories."""
    if name in BUNDLED or name.partition(":")[0] == _SYNTHETIC:
        return name
    return str(Path(name).absolute())
