"""Environments keep their contract, and its check notices each of the faults that one may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from envs.contract import check_environment
from envs.errors import ContractError
from envs.multimodal_al import MultimodalALEnv, VectorMultimodalALEnv
from tests.support.environment import CONFIG, config

MISSING = "synthetic:samples=300,classes=3,modalities=3,dim=4,missing=0.3,seed=2"
FAMILY = "synthetic-family:samples=400,classes=3"


def test_contract() -> None:
    check_environment(CONFIG)
    check_environment(config(datasets=(FAMILY,)))
    check_environment({"datasets": (MISSING,), "protocol": CONFIG.protocol, "model": CONFIG.model, "starts": 1})


class Wrong(VectorMultimodalALEnv):
    """An environment with one fault, which `fault` names."""

    fault = ""
    made = 0

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        Wrong.made += 1
        self.number = Wrong.made
        if self.fault == "autoreset":
            self.metadata = self.metadata | {"autoreset_mode": AutoresetMode.SAME_STEP}
        if self.fault == "attribute":
            self.autoreset_mode = AutoresetMode.DISABLED
        self.strict = self.fault == "members"

    def reset(self, **arguments: Any):
        observations, infos = super().reset(**arguments)
        if self.fault == "copies":
            infos["start"][1] += 1
        if self.fault == "instance" and self.number % 2:
            observations["state"][:] += 1.0
        if self.fault == "calls":
            self.number += 1
            observations["state"][:] += self.number
        if self.fault == "missing info":
            del infos["labels"]
        return observations, infos

    def step(self, actions: np.ndarray):
        begins = self._finished
        observations, rewards, terminated, truncated, infos = super().step(actions)
        if self.fault in OBSERVATIONS:
            OBSERVATIONS[self.fault](observations)
        elif self.fault in INFOS:
            INFOS[self.fault](infos)
        elif self.fault == "writing":
            self.kept = getattr(self, "kept", observations)
            self.kept["state"][:] += 1.0
        elif self.fault == "refusal":
            raise ValueError("no")
        elif self.fault == "reward of a reset" and begins:
            rewards = rewards + 1.0
        rewards = rewards.astype(np.float32) if self.fault == "reward type" else rewards
        terminated = ~terminated if self.fault == "termination" else terminated
        truncated = ~truncated if self.fault == "truncation" else truncated
        return observations, rewards, terminated, truncated, infos


OBSERVATIONS: dict[str, Callable[[dict], object]] = {
    "type": lambda o: o.update(features=o["features"].astype(np.float16)),
    "shape": lambda o: o.update(state=o["state"][0]),
    "space": lambda o: o["valid"].__setitem__((0, 0), 2),
}
INFOS: dict[str, Callable[[dict], object]] = {
    "uncounted": lambda i: i.pop("replaced", None),
    "finite": lambda i: i["accuracy"].__setitem__(0, np.nan),
    "scalar": lambda i: i.update(accuracy=0.5),
    "missing term": lambda i: i.pop("reward/hard_third", None),
    "task models": lambda i: i["soft_accuracy"].__setitem__(1, i["soft_accuracy"][0] + 0.01),
}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("autoreset", r"autoreset_mode'\] is AutoresetMode.SAME_STEP, not NEXT_STEP"),
        ("attribute", "^autoreset_mode is AutoresetMode.DISABLED, not NEXT_STEP"),
        ("members", "A member of the action space is refused: an action names a candidate slot twice"),
        ("uncounted", r"info\['replaced'\] is None for one slot throughout, not 3"),
        ("copies", r"info\['start'\] differs between copies of a start at reset"),
        ("instance", r"observation\['state'\] differs between two runs of another environment .* at reset"),
        ("calls", r"observation\['state'\] differs between two runs of the same environment .* at reset"),
        ("missing info", "info lacks labels at reset"),
        ("type", r"observation\['features'\] is float16 \[4, 20, \d+\] at step 1; expected float32"),
        ("shape", r"observation\['state'\] is float32 \[\d+\] at step 1; expected float32 \[4, \d+\]"),
        ("space", "outside its space at step 1"),
        ("finite", r"info\['accuracy'\] is not finite at step 1"),
        ("scalar", r"info\['accuracy'\] is no array of 4 episodes at step 1"),
        ("reward type", "rewards is float32 at step 1; expected float64"),
        ("termination", r"terminated should be \[False, False, False, False\] at step 1"),
        ("truncation", "truncated at step 1"),
        ("reward of a reset", "step after the end gives rewards"),
        ("missing term", "info lacks reward/hard_third at step 1"),
        ("writing", r"observation\['state'\] was written again after it was handed out at step 1"),
        ("refusal", "valid action is refused at step 1: no"),
        ("task models", "Copies that pick alike get other task models"),
    ],
)
def test_the_contract_notices(fault: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envs.contract.environment.VectorMultimodalALEnv", Wrong)
    monkeypatch.setattr(Wrong, "fault", fault)
    with pytest.raises(ContractError, match=message):
        check_environment(CONFIG)


def test_the_contract_passes_gymnasiums_refusal_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultimodalALEnv, "step", lambda *_: (None, 0.0, False, False, {}))
    with pytest.raises(ContractError, match="check_env refuses the environment: The obs"):
        check_environment(CONFIG)
