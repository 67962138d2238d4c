"""What was found amiss, and the first of each kind in full."""

from __future__ import annotations

from collections import Counter

KINDS = ("lost", "other", "traceback")
_PRINTED = 5  # of a kind


class Faults(Counter[str]):
    """Numbers of faults by kind."""

    def add(self, kind: str, words: str) -> None:
        self[kind] += 1
        if self[kind] <= _PRINTED:
            print(f"FAULT ({kind}): {words}", flush=True)

    def __str__(self) -> str:
        return ", ".join(f"{kind} {self[kind]}" for kind in KINDS)
