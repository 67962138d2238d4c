"""Learning curves of the paired baselines that rewards are relative to, computed once and kept.

They lie in a cache folder under a hash of everything that decides them, so that runs, trials of a sweep and resumed
runs share them: $RL_MBA_CACHE, else $XDG_CACHE_HOME/rl-mba, else ~/.cache/rl-mba.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from envs.errors import ConfigError
from envs.multimodal_al import EnvConfig
from envs.source import Source
from envs.sources import is_family, open_dataset
from policies.strategies import get_strategy
from runtime.array_store import ArrayStore
from runtime.code_hash import code_hash, describe_settings
from runtime.tasks import Workers, cores, in_parallel, remote_task

CHUNK = 16  # starts that one task plays in lockstep

_Part = tuple[str, int, int]  # strategy, source, first start


def cache_folder() -> Path:
    """Where curves are kept."""
    if named := os.environ.get("RL_MBA_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rl-mba"


def baseline_curves(
    config: EnvConfig, strategies: tuple[str, ...], progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, np.ndarray]:
    """Accuracy on the reward rows of every strategy on every start, from the cache or played now.

    Of several runs that need the same curves at once, one plays and the others wait.

    Args:
        config: the environment's configuration; its starts are played.
        strategies: names.
        progress: called with parts done and parts in all while some are being played.

    Returns:
        strategy -> float32 [sources, starts, T + 1], by round from 0; NaN for families.

    Raises:
        ConfigError: where the cache folder cannot be written.
        RLMBAError: where a strategy cannot play, or the process that it plays in dies again and again.
    """
    # Nobody can have played the pools that a family will give.
    fingerprints = {i: open_dataset(name).fingerprint for i, name in enumerate(config.datasets) if not is_family(name)}
    parts = product(strategies, fingerprints, range(0, config.starts, CHUNK))
    keys = {part: _key(config, fingerprints[part[1]], part[0], part[2]) for part in parts}
    store = ArrayStore(cache_folder() / "baseline_curves")
    found = _stored(store, keys)
    if len(found) < len(keys):
        together = hashlib.sha256("".join(sorted(keys.values())).encode()).hexdigest()[:16]
        with _lock(store.folder / f".{together}.lock"):
            found |= _stored(store, {part: key for part, key in keys.items() if part not in found})
            missing = [part for part in keys if part not in found]
            task = remote_task(_play)
            workers = Workers(cores(), name="process that plays baselines", if_they_die="see whether it lacks memory")
            with closing(in_parallel(missing, lambda part: task.remote(config, *part), workers)) as played:
                for done, (part, accuracy) in enumerate(played, len(keys) - len(missing) + 1):
                    found[part] = accuracy
                    store.put(keys[part], {"accuracy": accuracy})
                    progress(done, len(keys))
    shape = (len(config.datasets), config.starts, config.protocol.rounds + 1)
    curves = {strategy: np.full(shape, np.nan, np.float32) for strategy in strategies}
    for (strategy, source, low), accuracy in found.items():
        curves[strategy][source, low : low + CHUNK] = accuracy
    return curves


def _stored(store: ArrayStore, keys: Mapping[_Part, str]) -> dict[_Part, np.ndarray]:
    """Accuracies [starts, T + 1] of the parts that the store holds."""
    arrays = {part: store.get(key) for part, key in keys.items()}
    return {part: kept["accuracy"] for part, kept in arrays.items() if kept is not None}


def _key(config: EnvConfig, fingerprint: str, strategy: str, low: int) -> str:
    """Hash of everything that decides a part."""
    decisive = {
        "pool": fingerprint,
        "protocol": asdict(config.protocol),
        "model": describe_settings(config.model),
        "seed": config.seed,
        "starts": [low, min(low + CHUNK, config.starts)],
        "strategy": strategy,
        "code": code_hash(get_strategy(strategy).__module__, __name__),
        "versions": [torch.__version__, np.__version__],
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]


def _lock(path: Path) -> FileLock:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"Cannot write the cache folder {path.parent}: {error.strerror}; name another one in RL_MBA_CACHE."
        ) from None
    return FileLock(path)


def _play(config: EnvConfig, strategy: str, source_number: int, low: int) -> np.ndarray:
    """Curves [starts, T + 1] of one strategy on the starts of one part."""
    torch.set_num_threads(1)
    source = Source(config.datasets[source_number], config.model, config.protocol, config.seed, config.device)
    simulation = source.simulation
    simulation.reset([source.start(i) for i in range(low, min(low + CHUNK, config.starts))])
    accuracies = [simulation.measure().accuracy]
    accuracies += [step.after.accuracy for step in simulation.play(get_strategy(strategy))]
    return torch.stack(accuracies, 1).cpu().numpy()
