"""Whether files are whole, by what their formats say of themselves."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from safetensors.torch import load

_UNFINISHED = ".unfinished-"


def _has_end(*ends: bytes) -> Callable[[bytes], bool]:
    return lambda content: content.endswith(ends)


_WHOLE: dict[str, Callable[[bytes], object]] = {
    ".json": lambda content: json.loads(content) is not None,
    # The last line may be cut short.
    ".jsonl": lambda content: all(isinstance(json.loads(line), dict) for line in content.split(b"\n")[:-1]),
    ".yaml": lambda content: isinstance(yaml.safe_load(content), dict),
    ".npz": lambda content: zipfile.ZipFile(io.BytesIO(content)).testzip() is None,
    ".safetensors": load,
    ".parquet": lambda content: pq.read_table(io.BytesIO(content)).num_columns,
    ".png": _has_end(b"IEND\xaeB`\x82"),
    ".svg": _has_end(b"</svg>", b"</svg>\n"),
    ".html": _has_end(b"</html>", b"</html>\n"),
    ".csv": _has_end(b"\n"),
    ".md": _has_end(b"\n"),
}


def halves(folder: Path, passing: str) -> list[str]:
    """What is wrong with the files below a folder that are neither whole nor hidden as unfinished.

    Args:
        passing: a folder in it that is not looked at.
    """
    found = []
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if parts[0] == passing or any(part.startswith(_UNFINISHED) for part in parts) or not file.is_file():
            continue
        try:
            whole = file.suffix not in _WHOLE or _WHOLE[file.suffix](file.read_bytes())
        except Exception as error:  # whatever a library raises
            found.append(f"{file}: {error!r:.300}")
        else:
            found += [] if whole else [f"{file} lacks its end or is damaged"]
    return found
