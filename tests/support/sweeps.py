"""A sweep that takes seconds."""

from __future__ import annotations

TINY = {
    "trials": 4,
    "concurrent": 1,
    "starts": 2,
    "objectives": {"aulc": "max", "weakest_modality": "max"},
    "train": {
        "algorithm": "evolution",
        "datasets": ["synthetic:samples=400,classes=4,modalities=2,dim=8,seed=1"],
        "evolution": {"generations": 2, "starts": 1, "population": 4},
        "protocol": {"initial_labels": 8, "batch_size": 4, "rounds": 3},
    },
    "space": {"reward.weakest_modality": {"uniform": [0.0, 2.0]}, "reward.hard_third": {"uniform": [0.0, 2.0]}},
}
