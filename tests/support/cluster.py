"""Settings for runs on a cluster of this machine."""

from __future__ import annotations

SETTINGS = [
    "protocol.initial_labels=6",
    "protocol.batch_size=3",
    "protocol.rounds=3",
    "model.steps=5",
    "candidates.per_pick=8",
    "learner.groups=4",
    "learner.copies=4",
    "learner.iterations=3",
    "starts=4",
]

DATASET = "synthetic:samples=300,classes=3,modalities=2,dim=6,seed=1"
