"""YAML that is read in one way only: what may have been meant otherwise is refused, with its line.

As in YAML 1.2, only `true` and `false` are truth values, and `1:30` or `2024-01-31` are text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from envs.errors import ConfigError

_BOOL, _INT, _FLOAT, _TIME = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "timestamp"))
_TRUTH = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_WHOLE = re.compile(r"^[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+|0o[0-7_]+)$")
_NUMBER = re.compile(
    r"^[-+]?(?:(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)
_OCTAL = re.compile(r"^[-+]?0[0-9_]+$")
# What the library raises on text that looks like a value of a tag and is none, and on nesting without end.
_BROKEN = (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)


class _Loader(yaml.SafeLoader):
    """The safe loader, without the guesses of YAML 1.1 and without a name that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise ConfigError(
                    f"'{key.value}' stands twice, in line {lines[key.value]} and in line {line}; write it once, with "
                    "all that belongs to it."
                )
            lines[key.value] = line
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        if _OCTAL.match(text) and set(text) - set("+-0_"):
            plain = text.replace("_", "").lstrip("+-").lstrip("0")
            raise ConfigError(
                f"{text} in line {node.start_mark.line + 1} is octal for some readers and decimal for others; write "
                f"{plain}."
            )
        return int(text.replace("_", ""), 0 if text.lstrip("+-")[1:2] in ("x", "b", "o") else 10)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL, _INT, _FLOAT, _TIME)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, _TRUTH, list("tTfF"))
_Loader.add_implicit_resolver(_INT, _WHOLE, list("-+0123456789"))
_Loader.add_implicit_resolver(_FLOAT, _NUMBER, list("-+.0123456789"))
_Loader.add_constructor(_INT, _Loader.construct_yaml_int)


def parse_yaml(text: str, source: str) -> Any:
    """The value that a YAML text holds.

    Args:
        source: what the text is, at the beginning of messages.

    Raises:
        ConfigError: where it is not valid, names something twice in one section, or writes a number ambiguously.
    """
    try:
        return yaml.load(text, _Loader)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    except _BROKEN as error:
        raise ConfigError(f"{source} is not valid YAML: {' '.join(str(error).split())[:300]}") from None
