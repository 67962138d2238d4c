"""Where pools come from: bundled data sets, a generator, files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from envs.errors import ConfigError, DataError, nearest
from envs.flags import split_list
from envs.pools import Pool, load_pool
from envs.sources.bundled import BUNDLED, load_bundled
from envs.sources.synthetic import make_synthetic
from envs.sources.synthetic_spec import draw_spec, format_spec, parse_parameters, parse_spec

__all__ = [
    "absolute_name",
    "dataset_names",
    "draw_from_family",
    "is_family",
    "open_dataset",
    "split_names",
]

_SYNTHETIC = "synthetic"
_JOINED = 5  # parts of a path with commas that are looked for
_FAMILY = "synthetic-family"  # no pool, but as many as one likes to draw


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
        ConfigError: on bad parameters of ``synthetic``, and for ``synthetic-family``, which is no single pool.
    """
    name = os.fspath(name_or_path)
    if isinstance(name_or_path, str):
        if name in BUNDLED:
            return load_bundled(name)
        kind, _, parameters = name.partition(":")
        if kind == _SYNTHETIC:
            return make_synthetic(parse_spec(parameters))
        if kind == _FAMILY:
            raise ConfigError(
                f"'{name}' is no single pool: training draws another one from it again and again. "
                f"Name one, as in synthetic:label_noise=0.3,seed=1."
            )
    if Path(name).exists() or Path(name).suffix == ".npz" or Path(name).name != name:
        return load_pool(name)
    names = dataset_names()
    raise DataError(
        f"Unknown data set '{name}'.{nearest(name, [*names, _FAMILY])} Data sets: {', '.join(names)}; or the "
        "path of a pool folder or a .npz file."
    )


def split_names(text: str) -> list[str]:
    """Data sets of a comma-separated list; the commas between the parameters of ``synthetic:a=1,b=2`` do not count.

    Raises:
        ConfigError: where an entry is empty, or a path holds a comma and no quotes.
    """
    names: list[str] = []
    for part in split_list(text):
        generated = bool(names) and names[-1].startswith((f"{_SYNTHETIC}:", f"{_FAMILY}:"))
        if generated and "=" in part and ":" not in part.partition("=")[0]:
            names[-1] += f",{part}"
        else:
            names.append(part)
    if '"' not in text:
        _refuse_divided_path(text)
    return names


def _refuse_divided_path(text: str) -> None:
    """Raise ConfigError where entries of a list make a path only together."""
    parts = text.split(",")
    for first in range(len(parts)):
        for end in range(first + 2, min(first + _JOINED, len(parts)) + 1):
            joined = ",".join(parts[first:end])
            if os.path.exists(joined):
                raise ConfigError(f"The path {joined} holds a comma; write it in quotes: '\"{joined}\"'.")


def absolute_name(name: str) -> str:
    """The name, or the absolute path where it is one: processes elsewhere have other working directories."""
    if name in BUNDLED or name.partition(":")[0] in (_SYNTHETIC, _FAMILY):
        return name
    return str(Path(name).absolute())


def is_family(name: str) -> bool:
    """Whether a name stands for pools to be drawn: ``synthetic-family``, alone or with parameters that are fixed."""
    return name.partition(":")[0] == _FAMILY


def draw_from_family(name: str, rng: np.random.Generator) -> str:
    """The name of a pool drawn from a family, for `open_dataset`.

    A ``seed`` among the fixed parameters decides, together with `rng`, which pools are drawn.

    Raises:
        ConfigError: on bad parameters.
    """
    fixed = parse_parameters(name.partition(":")[2])
    if "seed" in fixed:
        seed = fixed.pop("seed")
        if seed < 0:
            raise ConfigError(f"{_FAMILY}: seed is {seed}; use a whole number of at least 0.")
        rng = np.random.default_rng([seed, int(rng.integers(2**31))])
    return f"{_SYNTHETIC}:{format_spec(draw_spec(rng, **fixed))}"
