"""Environments keep their contract, and its check notices each of the faults that one may have."""

from __future__ import annotations

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
        match self.fault:
            case "type":
                observations["features"] = observations["features"].astype(np.float32)
            case "shape":
                observations["state"] = observations["state"][0]
            case "space":
                observations["valid"][0, 0] = 2
            case "finite":
                infos["accuracy"][0] = np.nan
            case "scalar":
                infos["accuracy"] = 0.5
            case "reward type":
                rewards = rewards.astype(np.float32)
            case "termination":
                terminated = ~terminated
            case "truncation":
                truncated = ~truncated
            case "reward of a reset" if begins:
                rewards = rewards + 1.0
            case "missing term":
                infos.pop("reward/hard_third", None)
            case "writing":
                self.kept = getattr(self, "kept", observations)
                self.kept["state"][:] += 1.0
            case "refusal":
                raise ValueError("no")
            case "task models" if not begins:
                infos["soft_accuracy"][1] += 0.01
        return observations, rewards, terminated, truncated, infos


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("autoreset", r"autoreset_mode'\] is AutoresetMode.SAME_STEP, not NEXT_STEP"),
        ("copies", r"info\['start'\] differs between copies of a start at reset"),
        ("instance", r"observation\['state'\] differs between two runs of another environment .* at reset"),
        ("calls", r"observation\['state'\] differs between two runs of the same environment .* at reset"),
        ("missing info", "info lacks labels at reset"),
        ("type", r"observation\['features'\] is float32 \[4, 20, \d+\] at step 1; expected float16"),
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
    monkeypatch.setattr("envs.contract.VectorMultimodalALEnv", Wrong)
    monkeypatch.setattr(Wrong, "fault", fault)
    with pytest.raises(ContractError, match=message):
        check_environment(CONFIG)


def test_the_contract_passes_gymnasiums_refusal_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultimodalALEnv, "step", lambda *_: (None, 0.0, False, False, {}))
    with pytest.raises(ContractError, match="check_env refuses the environment: The obs"):
        check_environment(CONFIG)
