"""Which samples are offered to a policy, what it learns about each, and the observation that carries it."""

from envs.candidates.features import (
    DEFAULT_FEATURES,
    FAR,
    FEATURES,
    STATE,
    Feature,
    StateEntry,
    check_features,
)
from envs.candidates.observation import OBSERVATION, ON_DEMAND, observation_bytes, observation_space
from envs.candidates.offer import CandidateConfig, Candidates, offer
from envs.candidates.scales import log_ratio
from envs.candidates.view import View

__all__ = [
    "DEFAULT_FEATURES",
    "FAR",
    "FEATURES",
    "OBSERVATION",
    "ON_DEMAND",
    "STATE",
    "CandidateConfig",
    "Candidates",
    "Feature",
    "StateEntry",
    "View",
    "check_features",
    "log_ratio",
    "observation_bytes",
    "observation_space",
    "offer",
]
