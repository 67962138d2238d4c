"""A policy as two files: weights as safetensors, and a card that says where they come from, as JSON."""

from __future__ import annotations

import filecmp
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import (
    Any,  # pydantic needs them before Python 3.12
)

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typing_extensions import TypedDict

from envs.candidates import CandidateConfig
from envs.errors import ConfigError, PolicyError, shorten
from envs.files import new_file
from envs.origin import is_signed, sign
from envs.reading import parse_json, reading, typed
from envs.registry import names_of
from policies.selector import Selector, SelectorConfig

FORMAT = 1
WEIGHTS_FILE, CARD_FILE = "policy.safetensors", "policy.json"
PRETRAINED = Path(__file__).parent / "pretrained"  # folder of the policy that comes with this package


class _Source(TypedDict, total=False):
    """What training looked at, as far as this version knows of it."""

    name: str
    fingerprint: str
    labels: int


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
    # The sources that the policy was trained on which training started from, as in `trained_on`.
    pretrained_on: list[dict[str, Any]] = field(default_factory=list)


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


def same_weights(path: str | Path, other: str | Path) -> bool:
    """Whether two policies' weights are the same, byte by byte.

    Raises:
        PolicyError: where one of them is not there.
    """
    first, second = (find_policy(p) / WEIGHTS_FILE for p in (path, other))
    return filecmp.cmp(first, second, shallow=False)


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
        with reading(card_file, "is not a readable policy card: {reason}. Export it again", PolicyError):
            config, card, trusted = _read_card(card_file, trust)
    except ConfigError as error:
        raise PolicyError(f"{card_file} does not fit this version: {error}") from error
    with reading(weights_file, "is not a readable policy: {reason}. Export it again", PolicyError):
        state = load_file(weights_file)
    with (
        names_of(card_file, trusted),
        reading(weights_file, "is not a readable policy: {reason}. Export it again", PolicyError),
    ):
        selector = _filled(config, state)
    for name, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise PolicyError(f"{weights_file} holds a value that is not finite in {shorten(name)}; train it again.")
    return selector.eval(), card


def _read_card(file: Path, trust: bool) -> tuple[SelectorConfig, PolicyCard, bool]:
    """What a policy's card says, and whether the names of modules in it are trusted."""
    raw = parse_json(file.read_text(encoding="utf-8"))
    if raw["format"] != FORMAT:
        raise PolicyError(f"{file} has format {shorten(raw['format'])}; this version reads format {FORMAT}.")
    known = {k: raw[k] for k in PolicyCard.__dataclass_fields__ if k in raw}
    known["candidates"] = asdict(typed(CandidateConfig, known["candidates"]))
    card = typed(PolicyCard, known)
    for sources in (card.trained_on, card.pretrained_on):
        typed(list[_Source], sources)
    trusted = trust or is_signed(_imported(raw["selector"]), raw.get("signature"))
    with names_of(file, trusted):
        return typed(SelectorConfig, raw["selector"]), card, trusted


def _filled(config: SelectorConfig, state: dict[str, Tensor]) -> Selector:
    """A selector with these weights; shapes are compared before it takes any memory, whatever its card promises."""
    with torch.device("meta"):
        promised = {name: value.shape for name, value in Selector(config).state_dict().items()}
    for name, value in state.items():
        if name not in promised or value.shape != promised[name] or not value.is_floating_point():
            raise ValueError(f"its card promises no {shorten(name)} of {value.dtype} {list(value.shape)}")
    selector = Selector(config)
    selector.load_state_dict(state)
    return selector


def _imported(selector: dict[str, Any]) -> str:
    """What a policy has imported, as the text that is signed; "" for a policy that is data alone."""
    names = [*selector.get("features", ()), *selector.get("batch_features", ())]
    found = sorted({name for name in names if isinstance(name, str) and ":" in name})
    return f"policy {json.dumps(found)}" if found else ""
