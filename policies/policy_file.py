"""A policy as two files: weights as safetensors, and a card that says where they come from, as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from envs.candidates import CandidateConfig
from envs.errors import ConfigError, PolicyError
from envs.files import new_file
from envs.origin import is_signed, sign
from envs.registry import names_of
from policies.selector import Selector, SelectorConfig

FORMAT = 1
WEIGHTS_FILE, CARD_FILE = "policy.safetensors", "policy.json"
PRETRAINED = Path(__file__).parent / "pretrained"  # folder of the policy that comes with this package


@dataclass
class PolicyCard:
    """What a policy file says about itself."""

    candidates: CandidateConfig = field(default_factory=CandidateConfig)
    trained_on: list[dict[str, Any]] = field(default_factory=list)  # name, fingerprint and labels of each source
    labels_used: int = 0  # distinct labels that training looked at
    episodes: int = 0
    seed: int | None = None
    preset: str = "default"
    versions: dict[str, str] = field(default_factory=dict)
    algorithm: str = "reinforce"
    training_seconds: float | None = None  # wall clock of the iterations
    figures: dict[str, Any] = field(default_factory=dict)  # of a policy that ships: by data set, what it reached there
    parents: list[dict[str, Any]] = field(default_factory=list)  # of an average: what its parts say about themselves


def save_policy(selector: Selector, card: PolicyCard, folder: str | Path) -> Path:
    """Write policy.safetensors and policy.json, each whole or not at all; returns the folder.

    The card is written last and names the weights by their shape, so a reader never sees half a policy.

    Raises:
        OSError: where they cannot be written.
    """
    folder = Path(folder)
    state = {k: v.detach().cpu().float().contiguous() for k, v in selector.state_dict().items()}
    with new_file(folder / WEIGHTS_FILE) as aside:
        save_file(state, aside, metadata={"format": str(FORMAT)})
    content = {"format": FORMAT, "selector": asdict(selector.config), **asdict(card)}
    if imported := _imported(content["selector"]):
        content["signature"] = sign(imported)
    text = json.dumps(content | {"weights": selector.named_weights()}, indent=2)
    with new_file(folder / CARD_FILE) as aside:
        aside.write_text(text + "\n", encoding="utf-8")
    return folder


def find_policy(path: str | Path) -> Path:
    """The folder that holds a policy's two files, given that folder, a run folder, or one of the files."""
    path = Path(path)
    for folder in (path, path / "policy", path.parent):
        if folder == path.parent and path.name not in (WEIGHTS_FILE, CARD_FILE):
            continue
        if (folder / WEIGHTS_FILE).is_file() and (folder / CARD_FILE).is_file():
            return folder
    raise PolicyError(f"No policy at {path}: expected {WEIGHTS_FILE} and {CARD_FILE} there or in its 'policy' folder.")


def pretrained_policy() -> Path:
    """The folder of the policy that comes with this package, trained on many data sets for others.

    Raises:
        PolicyError: where its files are missing.
    """
    try:
        return find_policy(PRETRAINED)
    except PolicyError:
        raise PolicyError(
            f"The policy that comes with this package is missing: no {WEIGHTS_FILE} and {CARD_FILE} in {PRETRAINED}. "
            "Install the package again, or name a policy of your own."
        ) from None


def load_policy(path: str | Path, trust: bool = False) -> tuple[Selector, PolicyCard]:
    """Read a policy.

    One that looks at features named by `module:name` has those modules imported, which runs them. That is done where
    this user saved a policy with these names, where this process was told them before, or where
    $RL_MBA_TRUSTED_MODULES names the modules; all other policies are data.

    Args:
        trust: import whatever the file names.

    Raises:
        PolicyError: naming the file and what is wrong with it.
    """
    folder = find_policy(path)
    card_file, weights_file = folder / CARD_FILE, folder / WEIGHTS_FILE
    try:
        raw = json.loads(card_file.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise PolicyError(f"{card_file} has format {raw['format']!r}; this version reads format {FORMAT}.")
        shape: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw["selector"].items()}
        with names_of(card_file, trust or is_signed(_imported(shape), raw.get("signature"))):
            selector = Selector(SelectorConfig(**shape))
        known = {k: raw[k] for k in PolicyCard.__dataclass_fields__ if k in raw}
        known["candidates"] = CandidateConfig(**known["candidates"])
        card = PolicyCard(**known)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"{card_file} is not a readable policy card: {error!r}. Export it again.") from error
    except ConfigError as error:
        raise PolicyError(f"{card_file} does not fit this version: {error}") from error
    try:
        state = load_file(weights_file)
        selector.load_state_dict(state)
    except (SafetensorError, OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise PolicyError(f"{weights_file} is not a readable policy: {first} Export it again.") from error
    for name, value in state.items():
        if not all(math.isfinite(v) for v in value.flatten().tolist()):
            raise PolicyError(f"{weights_file} holds a value that is not finite in {name!r}; train it again.")
    return selector.eval(), card


def _imported(selector: dict[str, Any]) -> str:
    """What a policy has imported, as the text that is signed; "" for a policy that is data alone."""
    names = [*selector.get("features", ()), *selector.get("batch_features", ())]
    found = sorted({name for name in names if isinstance(name, str) and ":" in name})
    return f"policy {json.dumps(found)}" if found else ""
