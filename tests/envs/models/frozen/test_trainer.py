"""The trainer of frozen-feature task models against direct fits; what it shares, and how it travels."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from envs.models.frozen.fitting import Fitted, Parameters, fit, initial_parameters
from envs.models.frozen.model import StartRows
from envs.models.frozen.trainer import FrozenConfig, FrozenTrainer
from envs.pools import Pool
from envs.pools.partition import Start
from envs.simulation import ProtocolConfig
from envs.source import training_starts, training_trainer

CONFIG = FrozenConfig(hidden=7, steps=6, minibatch=10)  # fewer than are labelled, so that seeds matter
PROTOCOL = ProtocolConfig(initial_labels=12, batch_size=4, rounds=2)
SEEDS = (3, 8)


@pytest.fixture
def starts(missing_pool: Pool) -> list[Start]:
    return training_starts(missing_pool, PROTOCOL, SEEDS)


@pytest.fixture
def trainer(missing_pool: Pool) -> FrozenTrainer:
    return training_trainer(missing_pool, CONFIG)


def gathered(trainer: FrozenTrainer, start: Start) -> StartRows:
    held = np.concatenate([start.roles.validation, start.roles.holdout])
    return StartRows.gather(trainer.data, [start.seed], [start.roles.pool], [held])


def fitted_alone(trainer: FrozenTrainer, start: Start, positions: torch.Tensor) -> Fitted:
    """One model of one start, by `fit` itself."""
    rows = gathered(trainer, start)
    modalities, width = rows.x.shape[1:3]
    initial = initial_parameters([start.seed], modalities, width - 1, trainer.data.num_classes, CONFIG.hidden)
    return fit(initial, rows.labelled(positions[None]), CONFIG, [start.seed])


def assert_is(one: Fitted, at: int, alone: Fitted) -> None:
    for name in ("encoder", "modality_head", "multimodal_head"):
        torch.testing.assert_close(getattr(one.parameters, name)[at], getattr(alone.parameters, name)[0])
    torch.testing.assert_close(one.loss_slope[at], alone.loss_slope[0])
    torch.testing.assert_close(one.gradient_norm[at], alone.gradient_norm[0])


def test_initial_models_are_direct_fits_that_copies_share(trainer: FrozenTrainer, starts: list[Start]) -> None:
    model = trainer.begin(starts, copies=3)
    assert model.labelled.shape == (6, 12)
    for e in range(6):
        assert_is(model.fitted, e, fitted_alone(trainer, starts[e // 3], torch.from_numpy(starts[e // 3].initial)))
        assert (model.labelled[e].numpy() == starts[e // 3].initial).all()
    encoder = model.parameters.encoder
    assert torch.equal(encoder[0], encoder[2]) and not torch.equal(encoder[2], encoder[3])


def test_later_models_are_direct_fits_on_labels_of_their_own(trainer: FrozenTrainer, starts: list[Start]) -> None:
    trainer.begin(starts, copies=2)
    rng = np.random.default_rng(0)
    positions = torch.from_numpy(np.stack([rng.choice(trainer.labels.shape[1], 15, replace=False) for _ in range(4)]))
    model = trainer.fit(positions)
    for e in range(4):
        assert_is(model.fitted, e, fitted_alone(trainer, starts[e // 2], positions[e]))


def test_the_reference_knows_all_labels_of_the_starts_that_are_named(
    trainer: FrozenTrainer, starts: list[Start]
) -> None:
    trainer.begin(starts, copies=2)
    everything = torch.arange(trainer.labels.shape[1])
    for chosen in ([0, 1], [1]):
        model = trainer.reference(chosen)
        assert model.held_out().correct.shape[0] == len(chosen)
        for at, start in enumerate(chosen):
            assert_is(model.fitted, at, fitted_alone(trainer, starts[start], everything))


def test_rows_and_labels_are_those_of_the_starts(
    trainer: FrozenTrainer, starts: list[Start], missing_pool: Pool
) -> None:
    trainer.begin(starts)
    for s, start in enumerate(starts):
        held = np.concatenate([start.roles.validation, start.roles.holdout])
        assert (trainer.labels[s].numpy() == missing_pool.labels[start.roles.pool]).all()
        assert (trainer.held_out_labels[s].numpy() == missing_pool.labels[held]).all()
        assert torch.equal(trainer.density[s], trainer.data.density[trainer.data.columns(start.roles.pool)])


def test_other_labels_are_told_to_another_trainer(trainer: FrozenTrainer, starts: list[Start]) -> None:
    rows = starts[0].roles.pool
    classes = np.arange(len(rows), dtype=np.int64) % 5
    other = trainer.relabelled(rows, classes, 5)
    assert other is not trainer and other.data.x is trainer.data.x
    assert (other.data.labels.numpy()[trainer.data.columns(rows)] == classes).all()
    assert (np.delete(other.data.labels.numpy(), trainer.data.columns(rows)) == -1).all()
    assert other.data.num_classes == 5 and trainer.data.num_classes == 4
    assert other.begin(starts[:1]).head.shape[1] == 5


def test_a_trainer_that_was_sent_trains_the_same(trainer: FrozenTrainer, starts: list[Start]) -> None:
    sent = pickle.loads(pickle.dumps(trainer))
    assert sent.config == CONFIG and (sent.inputs(starts[0].roles.pool) == trainer.inputs(starts[0].roles.pool)).all()
    one, two = (t.begin(starts, copies=2).parameters for t in (trainer, sent))
    assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in vars(one))


def test_elsewhere_is_another_trainer_with_all_its_tensors_there(trainer: FrozenTrainer, starts: list[Start]) -> None:
    moved = trainer.to("meta")  # a device without memory
    assert moved.device.type == "meta" and trainer.device.type == "cpu"
    assert {t.device.type for t in (moved.data.x, moved.data.present, moved.data.labels, moved.data.density)} == {
        "meta"
    }
    back = trainer.to("cpu").begin(starts).parameters
    assert torch.equal(back.encoder, trainer.begin(starts).parameters.encoder)


def test_training_leaves_the_trainer_as_it_is(trainer: FrozenTrainer, starts: list[Start]) -> None:
    trainer.begin(starts)
    before: Parameters = trainer.initial.map(torch.clone)
    positions = torch.arange(14).expand(2, -1)
    first = trainer.fit(positions).parameters
    trainer.reference([0])
    assert torch.equal(trainer.fit(positions).parameters.encoder, first.encoder)
    assert all(torch.equal(getattr(before, name), getattr(trainer.initial, name)) for name in vars(before))
