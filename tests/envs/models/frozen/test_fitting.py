"""Training of task models: the written-out gradient, independence of neighbours, and that they learn."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

from envs.errors import ConfigError
from envs.models.frozen import fitting
from envs.models.frozen.fitting import Fitted, LabelledRows, Parameters, fit, initial_parameters
from envs.models.frozen.model import predict
from envs.models.frozen.trainer import FrozenConfig
from envs.randomness import stream

E, M, D, C, N = 5, 2, 6, 3, 14
CONFIG = FrozenConfig(hidden=7, steps=6)
NAMES = [f.name for f in fields(Parameters)]


def rows(seed: int = 0, count: int = N, spread: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Clustered rows [E, M, D + 1, n], labels [E, n] and a presence mask [E, M, n] with gaps."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(C, M, D))
    labels = rng.integers(0, C, (E, count))
    x = np.ones((E, M, D + 1, count), np.float32)
    x[:, :, :D] = (centres[labels] + spread * rng.normal(size=(E, count, M, D))).transpose(0, 2, 3, 1)
    present = rng.random((E, M, count)) < 0.7
    present[:, 0] |= ~present.any(1)
    return torch.from_numpy(x), torch.from_numpy(labels), torch.from_numpy(present)


def start(seeds: range | list[int] = range(E)) -> Parameters:
    return initial_parameters(list(seeds), M, D, C, CONFIG.hidden)


def loss_by_autograd(
    p: list[Tensor], x: Tensor, y: Tensor, present: Tensor | None, heads: str, mask: Tensor | None
) -> Tensor:
    """Both losses of one model, from their formulas alone: x [M, D + 1, n], mask [M, H, n] of the dropout."""
    z = torch.relu(p[0] @ x)
    if present is not None:
        z = z * present[:, None]
    if mask is not None:
        z = z * mask
    total = cross_entropy((p[2] @ z.flatten(0, 1)).T, y)
    for m in range(M):
        logits = p[1][m] @ z[m]
        alpha = 1.0 + softplus(logits)
        per_row = alpha.sum(0).log() - alpha.gather(0, y[None])[0].log()
        if heads == "cross_entropy":
            per_row = cross_entropy(logits.T, y, reduction="none")
        total = total + (per_row.mean() if present is None else per_row[present[m]].sum() / present[m].sum())
    return total


def train_by_autograd(
    episode: int,
    x: Tensor,
    y: Tensor,
    present: Tensor | None,
    config: FrozenConfig,
    heads: str = "evidential",
    masks: list[Tensor] | None = None,
) -> tuple[list[Tensor], list[float], float]:
    """Train one model in double precision: parameters, losses before each step, last gradient norm."""
    p = [getattr(start(), name)[episode].double().requires_grad_() for name in NAMES]
    optimiser = torch.optim.AdamW(p, lr=config.learning_rate, weight_decay=config.weight_decay)
    losses = []
    for step in range(config.steps):
        optimiser.zero_grad()
        loss = loss_by_autograd(p, x.double(), y, present, heads, None if masks is None else masks[step])
        loss.backward()
        p[0].grad[:, -1] = 0.0  # the constant unit is not trained
        optimiser.step()
        with torch.no_grad():
            p[0][:, -1, -1] = 1.0
        losses.append(loss.item())
    return p, losses, torch.cat([q.grad.flatten() for q in p]).norm().item()


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("steps", [1, 6])
def test_training_follows_autograd(gaps: bool, steps: int) -> None:
    x, y, present = rows()
    config = FrozenConfig(hidden=7, steps=steps)
    model = fit(start(), LabelledRows(x, y, present if gaps else None), config)
    for e in range(E):
        p, losses, norm = train_by_autograd(e, x[e], y[e], present[e] if gaps else None, config)
        assert model.gradient_norm[e].item() == pytest.approx(norm, rel=1e-4)
        slope = (losses[-1] - losses[0]) / steps
        assert model.loss_slope[e].item() == pytest.approx(slope, abs=1e-5)
        for name, expected in zip(NAMES, p, strict=True):
            actual = getattr(model.parameters, name)[e].double()
            torch.testing.assert_close(actual, expected.detach(), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(("heads", "dropout"), [("cross_entropy", 0.0), ("evidential", 0.4), ("cross_entropy", 0.4)])
def test_training_otherwise_follows_autograd(heads: str, dropout: float, gaps: bool) -> None:
    x, y, present = rows()
    seeds = list(range(40, 40 + E))
    model = fit(start(), LabelledRows(x, y, present if gaps else None), CONFIG, seeds, heads, dropout)
    for e in (0, 3):
        drops = fitting._Drops([seeds[e]], dropout, torch.Size((M, CONFIG.hidden, N)))
        masks = [drops.next().double() for _ in range(CONFIG.steps)]
        p, losses, norm = train_by_autograd(e, x[e], y[e], present[e] if gaps else None, CONFIG, heads, masks)
        assert model.gradient_norm[e].item() == pytest.approx(norm, rel=1e-4)
        assert model.loss_slope[e].item() == pytest.approx((losses[-1] - losses[0]) / CONFIG.steps, abs=1e-5)
        for name, expected in zip(NAMES, p, strict=True):
            actual = getattr(model.parameters, name)[e].double()
            torch.testing.assert_close(actual, expected.detach(), atol=2e-4, rtol=1e-3)


def test_dropout_keeps_the_constant_unit_and_the_mean() -> None:
    drops = fitting._Drops([1, 2], 0.25, torch.Size((2 * M, CONFIG.hidden, 500)))
    mask = torch.stack([drops.next() for _ in range(4)])
    assert (mask[:, :, -1] == 1.0).all()
    dropped = mask[:, :, :-1]
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    assert not torch.equal(mask[0, :M], mask[0, M:])  # each episode its own
    with pytest.raises(ValueError, match="seeds"):
        fit(start(), LabelledRows(*rows()[:2]), CONFIG, dropout=0.5)


@pytest.mark.parametrize("gaps", [False, True])
def test_gradients_with_respect_to_the_logits(gaps: bool, rng: np.random.Generator) -> None:
    labels = torch.from_numpy(rng.integers(0, C, (E, N)))
    present = rows()[2] if gaps else None

    logits = torch.from_numpy(rng.normal(size=(E, C, N))).requires_grad_()
    loss = cross_entropy(logits, labels, reduction="none").mean(1)
    loss.sum().backward()
    gradient = logits.detach().clone()
    torch.testing.assert_close(fitting._cross_entropy_gradient_(gradient, labels, watched=True), loss.detach())
    torch.testing.assert_close(gradient, logits.grad)

    logits = torch.from_numpy(rng.normal(0, 3, (E, M, C, N))).requires_grad_()
    alpha = 1.0 + softplus(logits)
    per_row = alpha.sum(2).log() - alpha.gather(2, labels[:, None, None].expand(E, M, 1, N))[:, :, 0].log()
    weight = torch.ones(E, M, N) if present is None else present.double()
    loss = ((per_row * weight).sum(2) / weight.sum(2)).sum(1)
    loss.sum().backward()
    gradient = logits.detach().clone()
    torch.testing.assert_close(fitting._evidential_gradient_(gradient, labels, present, watched=True), loss.detach())
    torch.testing.assert_close(gradient, logits.grad)


def assert_same(one: Fitted, two: Fitted, at: slice = slice(None)) -> None:
    for name in NAMES:
        torch.testing.assert_close(
            getattr(one.parameters, name), getattr(two.parameters, name)[at], atol=1e-4, rtol=1e-4
        )
    torch.testing.assert_close(one.loss_slope, two.loss_slope[at], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(one.gradient_norm, two.gradient_norm[at], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("minibatch", [512, 6])
def test_models_trained_together_equal_models_trained_alone(minibatch: int) -> None:
    x, y, present = rows()
    config = FrozenConfig(hidden=7, steps=8, minibatch=minibatch)
    together = fit(start(), LabelledRows(x, y, present), config, list(range(E)))
    for e in range(E):
        one = slice(e, e + 1)
        alone = fit(start([e]), LabelledRows(x[one], y[one], present[one]), config, [e])
        assert_same(alone, together, one)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_the_block_size_does_not_matter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, present = rows()
    config = FrozenConfig(hidden=7, steps=8, minibatch=9)
    whole = fit(start(), LabelledRows(x, y, present), config, list(range(E)))
    monkeypatch.setattr(fitting, "CPU_BLOCK", block)
    assert_same(fit(start(), LabelledRows(x, y, present), config, list(range(E))), whole)


def test_it_learns_and_so_does_every_head() -> None:
    x, y, _ = rows(0, 30)
    test_x, test_y, _ = rows(1, 200)
    config = FrozenConfig(hidden=12)
    initial = initial_parameters(list(range(E)), M, D, C, 12)
    model = fit(initial, LabelledRows(x, y), config)
    out = predict(model.parameters, test_x)
    assert (out.probabilities.argmax(1) == test_y).float().mean(1).min() > 0.9
    assert (out.evidence.argmax(2) == test_y[:, None]).float().mean(2).min() > 0.8
    assert (model.loss_slope < 0).all()


def test_wrong_labels_are_learnt_too() -> None:
    """Accuracy comes from the labels given, not from somewhere else."""
    x, y, _ = rows(0, 30)
    model = fit(start(), LabelledRows(x, (y + 1) % C), FrozenConfig(hidden=7))
    test_x, test_y, _ = rows(1, 200)
    predicted = predict(model.parameters, test_x).probabilities.argmax(1)
    assert (predicted == (test_y + 1) % C).float().mean() > 0.9


def test_values_of_absent_modalities_change_nothing(rng: np.random.Generator) -> None:
    x, y, present = rows()
    rubbish = x.clone()
    absent = ~present[:, :, None].expand_as(x)
    rubbish[absent] = torch.from_numpy(rng.normal(0, 100, int(absent.sum())).astype(np.float32))
    one, two = (fit(start(), LabelledRows(v, y, present), CONFIG) for v in (x, rubbish))
    for name in NAMES:
        assert torch.equal(getattr(one.parameters, name), getattr(two.parameters, name))
    out, expected = predict(one.parameters, rubbish, present), predict(one.parameters, x, present)
    for name in ("hidden", "evidence", "logits"):
        assert torch.equal(getattr(out, name), getattr(expected, name))
    assert (out.evidence.transpose(2, 3)[~present] == 0).all()
    assert (out.hidden.transpose(2, 3)[~present] == 0).all()


def test_initial_parameters_depend_on_the_seed_alone() -> None:
    several, alone, other = start([7, 3, 3]), start([3]), start([4])
    for name in NAMES:
        p = getattr(several, name)
        assert torch.equal(p[1], p[2])
        assert torch.equal(p[1], getattr(alone, name)[0])
        assert not torch.equal(getattr(alone, name), getattr(other, name))


def test_fit_leaves_its_arguments_alone() -> None:
    x, y, present = rows()
    initial = start()
    before = [getattr(initial, name).clone() for name in NAMES] + [x.clone(), y.clone(), present.clone()]
    fit(initial, LabelledRows(x, y, present), CONFIG)
    after = [getattr(initial, name) for name in NAMES] + [x, y, present]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_minibatches_are_reproducible_and_drawn_by_seed() -> None:
    x, y, present = rows()
    config = FrozenConfig(hidden=7, steps=8, minibatch=5)
    one, again, other = (fit(start(), LabelledRows(x, y, present), config, s) for s in ([1] * E, [1] * E, [2] * E))
    assert torch.equal(one.parameters.encoder, again.parameters.encoder)
    assert not torch.equal(one.parameters.encoder, other.parameters.encoder)
    with pytest.raises(ValueError, match="seeds"):
        fit(start(), LabelledRows(x, y, present), config)


def test_minibatches_have_a_stream_of_their_own() -> None:
    """A step on a minibatch is a step on the rows that the stream names."""
    x, y, present = rows()
    whole = LabelledRows(x, y, present)
    drawn = [stream(seed, "minibatches", N).integers(0, N, (1, 5))[0] for seed in range(E)]
    step = fit(start(), whole, FrozenConfig(hidden=7, steps=1, minibatch=5), range(E))
    same = fit(start(), whole.take(torch.from_numpy(np.stack(drawn))), FrozenConfig(hidden=7, steps=1))
    for name in NAMES:
        torch.testing.assert_close(getattr(step.parameters, name), getattr(same.parameters, name))


def test_minibatch_training_learns() -> None:
    x, y, _ = rows(0, 60)
    model = fit(start(), LabelledRows(x, y), FrozenConfig(hidden=7, minibatch=16), seeds=list(range(E)))
    test_x, test_y, _ = rows(1, 200)
    assert (predict(model.parameters, test_x).probabilities.argmax(1) == test_y).float().mean(1).min() > 0.9


def test_rows_shared_by_copies_are_predicted_as_if_repeated() -> None:
    x, y, present = rows()
    model = fit(start(range(4)), LabelledRows(x[:4], y[:4], present[:4]), CONFIG)
    shared = predict(model.parameters, x[:2], present[:2])
    twice = [0, 0, 1, 1]
    repeated = predict(model.parameters, x[twice], present[twice])
    torch.testing.assert_close(shared.logits, repeated.logits)
    torch.testing.assert_close(shared.evidence, repeated.evidence)


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden", 1), ("steps", 0), ("projection_dim", 0), ("minibatch", 0), ("learning_rate", 0.0),
     ("learning_rate", float("nan"))],
)  # fmt: skip
def test_settings_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{name} is {value}"):
        FrozenConfig(**{name: value})
