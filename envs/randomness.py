"""Random streams by what they are for: who draws for one purpose never draws the numbers of another."""

from __future__ import annotations

import hashlib

import numpy as np

# Streams that published figures rest on keep the key that they had; all others take theirs from a hash of the purpose.
_KEYS = {
    "initial parameters": 0x7A5C,
    "initial labels": 0x51A7,
    "dropout": 0xD80,
    "evolution: search": 1,
    "evolution: pools": 2,
    "evolution: protocols": 3,
    "synthetic: rows": 0,
    "synthetic: clusters": 1,
    "synthetic: order": 2,
    "synthetic: outliers": 3,
    "synthetic: label_noise": 4,
    "synthetic: missing": 5,
    "synthetic: corruption": 6,
    "labelling: measuring rows": 0x7E57,
    "labelling: measuring order": 0xEA5,
    "labelling: stop set": 0x57,
}
_BEFORE_THE_SEED = {"partition": 1, "training roles": 2, "evaluation roles": 3}  # likewise


def stream(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    """A generator of its own for each seed, purpose and further numbers (a generation, a count of rows).

    Args:
        seed: whole number of at least 0.
        purpose: what is drawn, in words.
        numbers: whole numbers of at least 0 that tell draws for one purpose apart.
    """
    if purpose in _BEFORE_THE_SEED:
        return np.random.default_rng([_BEFORE_THE_SEED[purpose], seed, *numbers])
    return np.random.default_rng([seed, *_key(purpose), *numbers])


def round_stream(seed: int, index: int, purpose: str) -> np.random.Generator:
    """A generator of its own for each start seed, round and purpose."""
    return np.random.default_rng([seed, index, *purpose.encode()])


def start_seed(seed: int, number: int) -> int:
    """The seed of start `number` of a run."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0] % 2**31)


def _key(purpose: str) -> tuple[int, ...]:
    if purpose in _KEYS:
        return (_KEYS[purpose],)
    # Beyond 16 bits, hence none of the keys above, and no number of rows or of a round.
    digest = hashlib.sha256(purpose.encode()).digest()
    return tuple(2**31 + int.from_bytes(digest[at : at + 4], "big") % 2**31 for at in (0, 4))
