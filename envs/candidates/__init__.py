"""Which samples are offered to a policy, what it learns about each, and the observation that carries it."""

from envs.candidates.features import (
    DEFAULT_FEATURES,
    FAR,
    FEATURES,
    STATE,
    Feature,
    StateEntry,
    View,
    check_features,
)
from envs.candidates.observation import OBSERVATION, observation_bytes, observation_space
from envs.candidates.offer import CandidateConfig, Candidates, offer

__all__ = [
    "DEFAULT_FEATURES",
    "FAR",
    "FEATURES",
    "OBSERVATION",
    "STATE",
    "CandidateConfig",
    "Candidates",
    "Feature",
    "StateEntry",
    "View",
    "check_features",
    "observation_bytes",
    "observation_space",
    "offer",
]
