"""A hash of the code behind a result: what was computed with other code is recognised, and computed anew."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from envs.errors import ConfigError

FOLLOWED = ("envs", "policies", "runtime")  # packages whose modules count wherever they are imported
REGISTRIES = ("policies.strategies",)  # packages of which a new entry changes nothing for the others


@lru_cache
def code_hash(*modules: str) -> str:
    """SHA-256 (hex) over the source files of `modules` and of the project's modules that they import.

    Imports are followed to the end, wherever in a file they stand, into FOLLOWED and into the packages of `modules`
    themselves. A package's `__init__` counts where something that it defines is imported, and that of REGISTRIES not
    even then: whoever looks a module up there while running names it in `modules`. Read once per process.

    Args:
        modules: full names, in any order; modules outside the project count as well.

    Raises:
        ConfigError: where a module has no source file.
    """
    digest = hashlib.sha256()
    for module, source in sorted(sources_behind(modules).items()):
        digest.update(f"{module}\0{hashlib.sha256(source).hexdigest()}\n".encode())
    return digest.hexdigest()


def describe_settings(settings: Any) -> dict[str, Any]:
    """What tells a section of settings apart: its fields, its class, and the code behind that."""
    kind = type(settings)
    code = code_hash(kind.__module__)
    return {"kind": f"{kind.__module__}.{kind.__qualname__}", "fields": asdict(settings), "code": code}


def sources_behind(modules: Iterable[str]) -> dict[str, bytes]:
    """The source of these modules and of all that count for them, by full name."""
    tops = {*FOLLOWED, *(module.partition(".")[0] for module in modules)}
    sources: dict[str, bytes] = {}
    waiting = sorted(set(modules))
    while waiting:
        module = waiting.pop()
        if module in sources:
            continue
        path = _source_file(module)
        if path is None:
            raise ConfigError(f"Module '{module}' has no source file to recognise its results by; put it into a file.")
        sources[module] = path.read_bytes()
        for name in _imports(module, path, sources[module]):
            if name.partition(".")[0] in tops and name not in REGISTRIES and _source_file(name):
                waiting.append(name)
    return sources


def _imports(module: str, path: Path, source: bytes) -> Iterator[str]:
    """Full names of the modules that a file imports; of `from a import b` it is a.b where that is a module, else a."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{path} is not valid Python: {error}.") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = node.level - (path.name == "__init__.py")  # a package is its own first level
                base = ".".join([*parts[: len(parts) - above], *filter(None, [base])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if _source_file(inner) else base


@cache
def _source_file(module: str) -> Path | None:
    """The file of a module, found without importing it or the packages around it."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # `__main__`, and modules that were loaded by hand
        spec = None
    if spec is None:
        file = getattr(sys.modules.get(module), "__file__", None)
        return Path(file) if file else None
    if spec.submodule_search_locations is None:
        return Path(spec.origin) if spec.origin and spec.has_location and not rest else None
    for folder in spec.submodule_search_locations:
        stem = Path(folder, *rest)
        for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
            if path.is_file() and (rest or path.name == "__init__.py"):
                return path
    return None
