"""Features that depend on the picks: by definition, pick by pick and replayed, alone and together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from envs.candidates import FEATURES
from envs.candidates.scales import LOG_LIMITS
from policies.batch_features import BATCH_FEATURES, DEFAULT_BATCH_FEATURES, BatchAware, BatchFeature
from policies.selector import Selector, SelectorConfig
from tests.support.observations import FEW, generator, random_observation

checked = settings(deadline=None, max_examples=25)


def random_picks(seed: int, b: int) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([rng.permutation(7)[:b] for _ in range(3)]))


@pytest.mark.parametrize("name", BATCH_FEATURES)
@given(seed=st.integers(0, 100_000), b=st.integers(1, 7))
@checked
def test_replayed_features_are_those_seen_pick_by_pick(name: str, seed: int, b: int) -> None:
    observation, picks = random_observation(seed), random_picks(seed, b)
    replayed = BatchAware(observation, (name,)).replay(picks)
    aware = BatchAware(observation, (name,))
    assert replayed.shape == (3, b, 14, 1)
    for j in range(b):
        away = torch.ones(3, 14, dtype=torch.bool).scatter(1, picks[:, :j], False)  # at a pick itself rounding decides
        torch.testing.assert_close(replayed[:, j][away], aware.current()[away], atol=1e-4, rtol=1e-4)
        aware.add(picks[:, j])


@given(st.integers(0, 100_000), st.permutations(list(BATCH_FEATURES)), st.integers(1, len(BATCH_FEATURES)))
@checked
def test_a_feature_is_the_same_alone_and_among_others_in_any_order(seed: int, order: list[str], count: int) -> None:
    """Some share what they compute."""
    observation, picks, names = random_observation(seed), random_picks(seed, 4), order[:count]
    together, alone = BatchAware(observation, names), [BatchAware(observation, (name,)) for name in names]
    assert torch.equal(together.replay(picks), torch.cat([aware.replay(picks) for aware in alone], 3))
    for j in range(4):
        assert torch.equal(together.current(), torch.cat([aware.current() for aware in alone], 2))
        for aware in (together, *alone):
            aware.add(picks[:, j])


def test_a_replay_leaves_nothing_behind() -> None:
    observation = random_observation(2)
    aware = BatchAware(observation)
    for picks in (random_picks(0, 4), random_picks(1, 4), random_picks(0, 2)):
        assert torch.equal(aware.replay(picks), BatchAware(observation).replay(picks))


def test_batch_features_by_their_definitions() -> None:
    observation = random_observation(5, rows=1)
    observation["valid"][:] = 1
    g, h = observation["gradient"][0].double(), observation["hidden"][0].double()
    labelled, predicted = observation["labelled_distance"][0].double(), observation["predicted"][0]
    picks = [4, 0, 6]
    features = BatchAware(observation).replay(torch.tensor([picks]))[0]
    names = dict(zip(BATCH_FEATURES, features.permute(2, 0, 1), strict=True))
    mean = g.square().sum(1).mean()
    x, unsure = observation["input"][0].double(), observation["uncertainty"][0].double()
    kernel, by_labelled = (
        (-torch.cdist(x, x).square()).exp(),
        (-observation["input_distance"][0].double().square()).exp(),
    )
    first: dict[str, Tensor] = {}
    for j in range(3):
        before = picks[:j]
        squared = torch.cdist(g, g[before]).square().amin(1) if before else g.square().sum(1)
        log = (squared / mean + 1e-4).log().clamp(*LOG_LIMITS)
        distance = torch.cdist(h, h[before]).amin(1) if before else torch.zeros(len(h)).double()
        coreset = torch.minimum(labelled, distance) if before else labelled
        share = torch.stack([(predicted == predicted[p]).double() for p in before]).mean(0) if before else 0 * distance
        covered = kernel[:, before].amax(1).maximum(by_labelled) if before else by_labelled
        added = (kernel - covered[:, None]).clamp_min(0)
        gains = {"coverage_gain": added.sum(0), "uncertain_coverage_gain": unsure @ added}
        first = first or {name: gain.mean() for name, gain in gains.items()}
        for name, expected in {
            "gradient_distance": log, "batch_distance": distance,
            "coreset_distance": coreset, "class_share": share,
            **{name: (gain / first[name] + 1e-4).log().clamp(*LOG_LIMITS) for name, gain in gains.items()},
        }.items():  # fmt: skip
            away = [i for i in range(14) if i not in before]  # at a pick itself rounding decides
            torch.testing.assert_close(names[name][j, away].double(), expected[away], atol=1e-4, rtol=1e-3)


def test_empty_slots_neither_gain_nor_count_as_covered() -> None:
    observation = random_observation(3, rows=1)
    observation["valid"][:] = 1
    names = ("coverage_gain", "uncertain_coverage_gain")
    whole = BatchAware(observation, names)
    wider = {k: torch.cat([v, torch.zeros_like(v[:, :5])], 1) if k != "state" else v for k, v in observation.items()}
    padded = BatchAware(wider, names)
    for pick in (3, 1):
        # Logarithms of small differences.
        torch.testing.assert_close(padded.current()[:, :14], whole.current(), atol=2e-3, rtol=1e-3)
        whole.add(torch.tensor([pick])), padded.add(torch.tensor([pick]))


# The registry


@pytest.mark.parametrize("feature", BATCH_FEATURES.values(), ids=BATCH_FEATURES)
def test_classes_are_entered_under_their_names_with_words(feature: type[BatchFeature]) -> None:
    assert BATCH_FEATURES[feature.name] is feature
    assert feature.name not in FEATURES
    assert len(set(feature.words)) == 2 and all(feature.words)
    assert "batch" in feature.groups
    assert feature.default == (feature.name in DEFAULT_BATCH_FEATURES)


@pytest.fixture
def away_from_first() -> Iterator[str]:
    """A feature of one's own: 1 where the candidate is of another class than the first pick."""

    class AwayFromFirst(BatchFeature):
        name = "away_from_first"
        words = ("of another class than the first pick", "of the first pick's class")

        def start(self) -> None:
            self._first: Tensor | None = None

        def add(self, pick: Tensor) -> None:
            self._first = pick if self._first is None else self._first

        def current(self) -> Tensor:
            predicted = self.view.predicted
            if self._first is None:
                return torch.zeros_like(self.view.labelled)
            return (predicted != predicted.gather(1, self._first)).float()

    BATCH_FEATURES[AwayFromFirst.name] = AwayFromFirst
    yield AwayFromFirst.name
    del BATCH_FEATURES[AwayFromFirst.name]


def test_a_feature_of_ones_own_decides_picks(away_from_first: str) -> None:
    observation = random_observation(7)
    selector = Selector(SelectorConfig(features=FEW, batch_features=(away_from_first,), initial="zero"))
    selector.weights.data[-1, 0] = 50.0
    picks, logp = selector.sample(observation, 2, generator(0))
    predicted = observation["predicted"].gather(1, picks)
    assert (predicted[:, 0] != predicted[:, 1]).all()
    torch.testing.assert_close(selector.log_probability(observation, picks).detach(), logp)
    assert away_from_first not in DEFAULT_BATCH_FEATURES
