"""What each strategy chose, for the page: samples as pictures and text, round by round, for the first seed."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

from envs.pools import Pool
from envs.pools.media import picture_type
from evaluation.runs import Played

PER_ROUND = 20  # samples shown of a round
TEXT_LENGTH = 60  # characters shown of a text
PICTURE_LIMIT = 64 * 1024  # bytes; a larger file is left out

# Formats that every browser shows. Nothing else goes into the page.
_FORMATS = ("image/png", "image/jpeg", "image/gif", "image/webp")


def has_gallery(pool: Pool) -> bool:
    """Whether there is anything that a person could look at."""
    return pool.text is not None or pool.picture is not None


def make_gallery(played: Played, budget: int) -> dict[str, Any]:
    """Content of the gallery, each sample and each picture once, as small as JSON gets.

    Args:
        budget: bytes of pictures that may go into the page; pictures beyond it are left out and counted.

    Returns:
        {"seed", "classes", "samples": [[class or -1, text, picture or -1]], "pictures": [data URI],
        "initial": [positions in samples], "more_initial", "rounds": {strategy: [[positions]]}, "more": samples of
        each round not shown, "left_out": {reason: count}}.
    """
    pool, first = played.pool, next(iter(played.runs.values()))
    samples: dict[int, int] = {}
    pictures = _Pictures(budget)
    rows: list[list[Any]] = []

    def position(row: int) -> int:
        if row not in samples:
            samples[row] = len(rows)
            picture = "" if pool.picture is None else str(pool.picture[row])
            rows.append([int(pool.labels[row]), _text(pool, row), pictures.add(picture) if picture else -1])
        return samples[row]

    def positions(chosen: np.ndarray) -> list[int]:
        return [position(int(row)) for row in chosen[:PER_ROUND]]

    rounds = {name: [positions(batch) for batch in runs.picked[0]] for name, runs in played.runs.items()}
    return {
        "seed": int(first.seeds[0]),
        "classes": list(pool.class_names),
        "initial": positions(first.initial[0]),
        "more_initial": max(0, first.initial.shape[1] - PER_ROUND),
        "rounds": rounds,
        "more": max(0, first.picked.shape[2] - PER_ROUND),
        "samples": rows,
        "pictures": pictures.content,
        "left_out": pictures.left_out,
    }


def _text(pool: Pool, row: int) -> str:
    text = "" if pool.text is None else " ".join(str(pool.text[row]).split())
    return text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1].rstrip() + "…"


class _Pictures:
    """Distinct picture files as data URIs, within a budget of bytes."""

    def __init__(self, budget: int):
        self.left = budget
        self.content: list[str] = []
        self.left_out: dict[str, int] = {}
        self._known: dict[str, int] = {}

    def add(self, path: str) -> int:
        """Index in `content`; -1 for a picture that is left out."""
        if path not in self._known:
            self._known[path] = self._read(Path(path))
        return self._known[path]

    def _read(self, path: Path) -> int:
        try:
            size = path.stat().st_size
            if size > PICTURE_LIMIT:
                return self._leave_out(f"larger than {PICTURE_LIMIT // 1024} kB")
            if size > self.left:
                return self._leave_out("beyond the space for pictures on this page")
            content = path.read_bytes()
        except (OSError, ValueError):
            return self._leave_out("not readable")
        kind = picture_type(content)
        if kind not in _FORMATS:
            return self._leave_out("not PNG, JPEG, GIF or WebP")
        self.left -= size
        self.content.append(f"data:{kind};base64,{base64.b64encode(content).decode()}")
        return len(self.content) - 1

    def _leave_out(self, reason: str) -> int:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1
        return -1
