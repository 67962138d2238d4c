"""The provenance of a comparison: what somebody needs to trust it, or to run it again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
import scipy
import torch

from envs.errors import PolicyError
from envs.pools import Pool
from policies.policy_file import PolicyCard


def origin_notes(pool: Pool, cards: Mapping[str, PolicyCard]) -> list[str]:
    """A note on each policy: what it was trained on, and whether that, or what it started from, was this data set."""
    notes = []
    for name, card in cards.items():
        sources = card.trained_on
        if any(s.get("fingerprint") == pool.fingerprint for s in sources):
            notes.append(
                f"Policy '{name}' was trained on '{pool.name}'. The comparison runs on rows that its "
                "training never saw: the evaluation half to pick from, the test rows to score."
            )
        elif any(s.get("fingerprint") == pool.fingerprint for s in card.pretrained_on):
            notes.append(
                f"Policy '{name}' was trained on {_names(sources)}, from a policy that had been trained on "
                f"'{pool.name}', too. The comparison runs on rows that neither training saw."
            )
        elif any(s.get("name") == pool.name for s in sources):
            notes.append(
                f"Policy '{name}' was trained on another version of '{pool.name}' (its fingerprint differs): "
                "rows of this comparison may have been among its training rows."
            )
        elif sources:
            notes.append(f"Policy '{name}' was trained on {_names(sources)}, not on '{pool.name}'.")
        else:
            notes.append(f"The card of policy '{name}' does not say what it was trained on.")
    return notes


def _names(sources: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(str(s.get("name", "?")) for s in sources))


def versions() -> dict[str, str]:
    """The versions of everything that computes."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "torch": torch.__version__,
        "ray": ray.__version__,
        "machine": platform.machine(),
    }


def hardware() -> dict[str, Any]:
    """The machine that runs this; the tasks of a comparison use no GPU."""
    model = platform.processor() or platform.machine()
    with suppress(OSError):  # only Linux has it
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        memory = None
    return {"cpu": model, "cores": os.cpu_count(), "memory_bytes": memory, "gpu": None}


def config_hash(decisive: Mapping[str, Any]) -> str:
    """A short name for what decides the results."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a policy's file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}.") from error


def describe_card(card: PolicyCard, folder: Path, weights_sha256: str) -> dict[str, Any]:
    """A policy's card as the summary holds it."""
    return asdict(card) | {"path": str(folder), "weights_sha256": weights_sha256}
