"""The selection network: its probabilities and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from envs.candidates import CandidateConfig, offer
from envs.errors import ConfigError
from policies.batch_features import BATCH_FEATURES, DEFAULT_BATCH_FEATURES, BatchAware
from policies.selector import SHORTLIST, Selector, SelectorConfig
from policies.start import initial_selector
from tests.support.observations import FEW, generator, random_observation, random_selector

checked = settings(deadline=None, max_examples=25)


def check_picks(observation: dict[str, Tensor], picks: Tensor, b: int) -> None:
    assert picks.shape == (3, b)
    assert (observation["valid"].gather(1, picks) == 1).all()
    assert all(len(set(row)) == b for row in picks.tolist())


# Probabilities


@given(st.integers(0, 100_000), st.sampled_from([(), (5,)]), st.integers(1, 6))
@checked
def test_the_probability_named_at_the_draw_is_the_one_replayed(seed: int, mlp: tuple[int, ...], b: int) -> None:
    observation, selector = random_observation(seed), random_selector(seed, mlp=mlp)
    picks, logp = selector.sample(observation, b, generator(seed))
    check_picks(observation, picks, b)
    torch.testing.assert_close(selector.log_probability(observation, picks).detach(), logp, atol=1e-3, rtol=1e-4)


def test_weights_may_change_with_other_entries_of_the_state() -> None:
    observation = random_observation(4)
    selector = Selector(SelectorConfig(features=FEW, batch_features=(), state=("validation_accuracy",), initial="zero"))
    selector.weights.data[0] = torch.tensor([0.0, 2.0])
    observation["state"][:, 1] = torch.tensor([-1.0, 0.0, 1.0])
    utility, _ = selector._static(observation)
    expected = observation["features"][..., 0].float() * torch.tensor([-2.0, 0.0, 2.0])[:, None]
    torch.testing.assert_close(utility, expected)
    assert list(selector.named_weights())[:2] == [FEW[0], f"{FEW[0]}*validation_accuracy"]
    with pytest.raises(ConfigError, match="Did you mean 'progress'"):
        SelectorConfig(state=("progres",))


def test_started_at_badge_the_second_pick_follows_squared_distances() -> None:
    observation = random_observation(1, rows=1)
    selector = initial_selector(SelectorConfig(features=FEW, initial="badge"))
    valid = observation["valid"][0].bool()
    first = 2
    others = [k for k in valid.nonzero()[:, 0].tolist() if k != first]
    picks = torch.tensor([[first, k] for k in others])
    batch = {name: value.expand(len(others), *value.shape[1:]) for name, value in observation.items()}
    p = torch.softmax(selector.log_probability(batch, picks).detach(), 0).double()
    g = observation["gradient"][0].double()
    d = (g[others] - g[first]).square().sum(1) + 1e-4 * g[valid].square().sum(1).mean()
    torch.testing.assert_close(p, d / d.sum(), rtol=1e-3, atol=1e-5)
    norm = g[valid].square().sum(1)
    singles = {k: v.expand(int(valid.sum()), *v.shape[1:]) for k, v in observation.items()}
    p = selector.log_probability(singles, valid.nonzero()).detach().exp().double()
    torch.testing.assert_close(p, (norm / norm.sum()), rtol=2e-3, atol=1e-4)


def test_started_at_badge_the_picks_are_those_of_badge_itself(pool, begin) -> None:
    """On sketches: D^2 sampling's first pick, the largest gradient, is greedy's as well."""
    _, round_ = begin(pool, (0, 1, 2, 3))
    offered = offer(round_, 4, CandidateConfig())
    picks = initial_selector(SelectorConfig(initial="badge")).select(offered.observation(), 4)
    assert torch.equal(picks[:, 0], offered.gradient.half().float().square().sum(2).argmax(1))


def test_progress_moves_the_weights() -> None:
    observation, selector = random_observation(2), random_selector(2, batch_features=())
    with torch.no_grad():
        selector.weights[:, 1] = -selector.weights[:, 0]
    observation["state"][:, 0] = torch.tensor([0.0, 0.5, 1.0])
    picks, logp = selector.sample(observation, 1, generator(0))
    features = observation["features"].float()
    for row, scale in enumerate((1.0, 0.5, 0.0)):
        u = scale * features[row] @ selector.weights[:, 0].detach()
        u = u[observation["valid"][row].bool()]
        assert logp[row].item() == pytest.approx(torch.log_softmax(u, 0)[picks[row, 0]].item(), abs=1e-4)


@given(
    st.integers(0, 100_000),
    st.sampled_from([(), DEFAULT_BATCH_FEATURES, tuple(BATCH_FEATURES)]),
    st.sampled_from([(), ("progress",), ("progress", "validation_accuracy")]),
    st.integers(1, 6),
)
@checked
def test_the_gradient_taken_at_the_draw_is_the_one_of_the_replay(
    seed: int, batch_features: tuple[str, ...], state: tuple[str, ...], b: int
) -> None:
    observation = random_observation(seed)
    selector = random_selector(seed, batch_features=batch_features, state=state)
    picks, logp, gradient = selector.sample_with_gradient(observation, b, generator(seed))
    for plain, ours in zip(selector.sample(observation, b, generator(seed)), (picks, logp), strict=True):
        assert torch.equal(plain, ours)
    assert gradient.shape == (3, *selector.weights.shape)
    replayed = selector.log_probability(observation, picks)
    for row in range(3):
        (expected,) = torch.autograd.grad(replayed[row], selector.weights, retain_graph=True)
        torch.testing.assert_close(gradient[row], expected, atol=1e-4, rtol=1e-3)


def test_gradients_at_the_draw_are_those_of_linear_weights() -> None:
    with pytest.raises(ValueError, match="linear"):
        random_selector(0, mlp=(3,)).sample_with_gradient(random_observation(0), 2)


@pytest.mark.parametrize("config", [{}, {"mlp": (4,)}, {"linear": False, "mlp": (4,), "batch_features": ()}])
def test_the_gradient_agrees_with_finite_differences(config: dict) -> None:
    observation, selector = random_observation(3), random_selector(3, **config)
    picks, _ = selector.sample(observation, 4, generator(0))
    selector.log_probability(observation, picks).sum().backward()
    rng, h = np.random.default_rng(0), 0.02
    for p in selector.parameters():
        direction = torch.from_numpy(rng.normal(size=p.shape).astype(np.float32))
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                p.add_(sign * h * direction)
                values.append(selector.log_probability(observation, picks).double().sum().item())
                p.sub_(sign * h * direction)
        slope = (values[0] - values[1]) / (2 * h)
        assert slope == pytest.approx((p.grad * direction).sum().item(), rel=0.02, abs=0.02)
    # A constant added to every utility changes no probability.
    moving = [p for name, p in selector.named_parameters() if name != "mlp.2.bias"]
    assert all(p.grad.abs().max() > 1e-3 for p in moving)


def test_the_mlp_residual_starts_at_nothing_and_can_learn() -> None:
    observation = random_observation(4)
    plain = Selector(SelectorConfig(features=FEW))
    residual = Selector(SelectorConfig(features=FEW, mlp=(6, 5)))
    picks, _ = plain.sample(observation, 5, generator(1))
    logp = residual.log_probability(observation, picks)
    torch.testing.assert_close(logp, plain.log_probability(observation, picks))
    logp.sum().backward()
    assert residual.mlp[-1].weight.grad.abs().max() > 0
    alone = Selector(SelectorConfig(features=FEW, linear=False, mlp=(6,), batch_features=()))
    assert alone.mlp[-1].weight.abs().max() > 0


def test_the_order_of_rows_and_their_neighbours_do_not_matter() -> None:
    observation, selector = random_observation(6, rows=5), random_selector(6)
    picks = selector.select(observation, 5)
    turned = {k: v.flip(0) for k, v in observation.items()}
    assert torch.equal(selector.select(turned, 5).flip(0), picks)
    logp, again = selector.log_probability(observation, picks), selector.log_probability(turned, picks.flip(0))
    torch.testing.assert_close(again.flip(0), logp)


# Greedy picks


def greedy_by_hand(selector: Selector, observation: dict[str, Tensor], b: int, among: Tensor) -> Tensor:
    """The largest utility at each pick, of what is left among the candidates marked, bool [B, K]."""
    aware, picks = BatchAware(observation, selector.config.batch_features), []
    static, weights = selector._static(observation)
    for _ in range(b):
        utility = static + (aware.current() * weights[:, None]).sum(2)
        picks.append(utility.masked_fill(~among, -torch.inf).argmax(1))
        among = among.scatter(1, picks[-1][:, None], False)
        aware.add(picks[-1])
    return torch.stack(picks, 1)


@given(st.integers(0, 100_000), st.integers(1, 6), st.sampled_from([DEFAULT_BATCH_FEATURES, tuple(BATCH_FEATURES)]))
@checked
def test_greedy_picks_are_the_largest_utilities_of_a_shortlist(seed: int, b: int, names: tuple[str, ...]) -> None:
    """What a feature compares with all candidates it still compares with all of them."""
    observation, selector = random_observation(seed, k=60), random_selector(seed, batch_features=names)
    valid = observation["valid"] > 0
    static, weights = selector._static(observation)
    first = static + (BatchAware(observation, names).current() * weights[:, None]).sum(2)
    best = first.masked_fill(~valid, -torch.inf).topk(min(SHORTLIST * b, 60), dim=1).indices
    among = torch.zeros_like(valid).scatter(1, best, True) & valid
    picks = selector.select(observation, b)
    check_picks(observation, picks, b)
    assert torch.equal(picks, greedy_by_hand(selector, observation, b, among))


def test_many_rows_are_replayed_in_blocks_as_they_would_be_alone() -> None:
    """On a processor; more rows than a block holds, the last block not full."""
    observation, selector = random_observation(3, rows=70), random_selector(3)
    picks, drawn = selector.sample(observation, 4, generator(1))
    together = selector.log_probability(observation, picks)
    torch.testing.assert_close(together, drawn, rtol=1e-4, atol=1e-4)
    for row in (0, 31, 32, 69):
        alone = selector.log_probability({k: v[row : row + 1] for k, v in observation.items()}, picks[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)
    together[33].backward()
    assert selector.weights.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"features": ("margn",)}, "Did you mean 'margin'"),
        ({"batch_features": ("coreset",)}, "Unknown batch feature 'coreset'"),
        ({"initial": "bagde"}, "Did you mean 'badge'"),
        ({"linear": False}, "no weights"),
        ({"linear": False, "mlp": (4,)}, "batch_features need policy.linear"),
    ],
)
def test_impossible_shapes_are_refused(settings_: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SelectorConfig(**settings_)
