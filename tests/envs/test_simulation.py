"""The labelling simulation: what copies share, what choosers may see, and what it refuses."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

from envs.models.frozen.trainer import FrozenConfig
from envs.pools import Pool
from envs.pools.partition import evaluation_roles, partition, training_roles
from envs.round import Round
from envs.simulation import InvalidPicks, Measurements, ProtocolConfig, Simulation
from envs.source import draw_start, evaluation_trainer, training_starts

PROTOCOL = ProtocolConfig(initial_labels=8, batch_size=4, rounds=3)
MODEL = FrozenConfig(hidden=6, steps=10)


@pytest.fixture
def simulation(begin, pool: Pool) -> Simulation:
    """Two starts, two copies of each."""
    return begin(pool, (0, 1), 2)[0]


def first_free(simulation: Simulation, count: int = 4) -> torch.Tensor:
    return simulation.round.available.float().topk(count, dim=1).indices


def test_copies_of_a_start_agree_until_their_picks_differ(simulation: Simulation, begin, pool: Pool) -> None:
    accuracy = simulation.measure().accuracy
    assert accuracy[0] == accuracy[1] and accuracy[2] == accuracy[3]
    picks = first_free(simulation)
    before = simulation.round.model.parameters.encoder.clone()
    simulation.label(picks)
    encoder = simulation.round.model.parameters.encoder
    torch.testing.assert_close(encoder[0], encoder[1])
    assert not torch.allclose(encoder[0], before[0])
    other = picks.clone()
    other[1] = simulation.round.available[1].nonzero()[-4:, 0]
    again = begin(pool, (0, 1), 2)[0]
    again.label(other)
    assert not torch.allclose(again.round.model.parameters.encoder[0], again.round.model.parameters.encoder[1])


def test_a_round_knows_bought_labels_and_no_others(simulation: Simulation, pool: Pool) -> None:
    for _ in range(2):
        simulation.label(first_free(simulation))
    round_ = simulation.round
    assert round_.labelled.shape == round_.labels.shape == (4, 16)
    for e, start in enumerate(s for s in simulation.starts for _ in range(2)):
        rows = start.roles.pool[round_.labelled[e].numpy()]
        assert (pool.labels[rows] == round_.labels[e].numpy()).all()
    assert (round_.available.sum(1) == round_.available.shape[1] - 16).all()
    assert not round_.available.gather(1, round_.labelled).any()


def test_measured_rows_do_not_reach_choosers(pool: Pool) -> None:
    """Other labels on the test rows change what is measured, and nothing that a strategy sees."""
    parts = partition(pool)
    labels = pool.labels.copy()
    labels[parts.test] = (labels[parts.test] + 1) % pool.num_classes
    rounds, measured = [], []
    for one in (pool, Pool(**{**vars(pool), "labels": labels})):
        simulation = Simulation(evaluation_trainer(one, MODEL), PROTOCOL)
        # The same start for both: drawing it again would stratify by the changed labels.
        simulation.reset([draw_start(evaluation_roles(pool, 0), 0, PROTOCOL)])
        rounds.append(simulation.round)
        measured.append(simulation.measure().accuracy)
    assert not torch.equal(*measured)
    torch.testing.assert_close(rounds[0].model.inputs(), rounds[1].model.inputs(), rtol=0, atol=0)
    for name in ("density", "labelled", "labels", "weights"):
        torch.testing.assert_close(getattr(rounds[0], name), getattr(rounds[1], name), rtol=0, atol=0)
    for field in dataclasses.fields(rounds[0].validation):
        one, two = (getattr(r.validation, field.name) for r in rounds)
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_hard_accuracy_counts_a_third_of_the_rows_fixed_in_advance(pool: Pool) -> None:
    """Wrong labels of one held-out row at a time show which rows count: the same before and after a pick."""
    roles = training_roles(pool, 0)
    start = draw_start(roles, 0, PROTOCOL)

    def play(labels: np.ndarray) -> list[tuple[float, float]]:
        changed = dataclasses.replace(pool, labels=labels)
        simulation = Simulation(MODEL.trainer(changed, partition(pool).policy), PROTOCOL)
        simulation.reset([start])
        measured = [simulation.measure()]
        simulation.label(first_free(simulation))
        measured.append(simulation.measure())
        return [(float(m.accuracy[0]), float(m.hard_accuracy[0])) for m in measured]

    rows, hard = len(roles.holdout), len(roles.holdout) // 3
    before = play(pool.labels)
    counted = []
    for row in roles.holdout:
        # Just one of all its labels makes a row right, so that some other label moves both accuracies, or one.
        moves = set()
        for shift in range(1, pool.num_classes):
            labels = pool.labels.copy()
            labels[row] = (labels[row] + shift) % pool.num_classes
            for t, (now, then) in enumerate(zip(play(labels), before, strict=True)):
                if now[0] != then[0]:
                    step = round((now[0] - then[0]) * rows)
                    moves.add((t, round((now[1] - then[1]) * hard) == step))
        assert moves in ({(0, True), (1, True)}, {(0, False), (1, False)})
        counted.append((0, True) in moves)
    assert sum(counted) == hard


def test_bad_picks_are_refused_and_nothing_is_bought(simulation: Simulation) -> None:
    good = first_free(simulation)
    labelled = simulation.round.labelled[1, 0]
    for place, value, words in ((0, good[1, 1], "twice"), (0, labelled, "already labelled"), (0, 10**6, "must lie in")):
        bad = good.clone()
        bad[1, place] = value
        with pytest.raises(ValueError, match=words):
            simulation.label(bad)
    with pytest.raises(ValueError, match="shape"):
        simulation.label(good[:2])
    assert simulation.round.index == 0 and simulation.round.labelled.shape[1] == 8


def same(one: Measurements, two: Measurements) -> bool:
    return all(torch.equal(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(one))


def test_a_played_episode_is_a_chain_of_steps(simulation: Simulation) -> None:
    asked: list[tuple[Round, int]] = []

    def choose(round_: Round, batch_size: int) -> torch.Tensor:
        asked.append((round_, batch_size))
        return first_free(simulation, batch_size)

    beginning = simulation.measure()
    steps = list(simulation.play(choose))
    assert [step.round.index for step in steps] == [0, 1, 2]
    assert all(step.round is round_ and size == 4 for step, (round_, size) in zip(steps, asked, strict=True))
    assert same(steps[0].before, beginning) and same(steps[-1].after, simulation.measure())
    for step, following in pairwise(steps):
        assert step.after is following.before
        assert torch.equal(following.round.labelled, torch.cat([step.round.labelled, step.picks], 1))
    assert not same(steps[0].before, steps[-1].after)
    assert simulation.round.index == 3 and not list(simulation.play(choose))  # the end


def test_an_episode_may_be_played_from_its_middle(simulation: Simulation, begin, pool: Pool) -> None:
    whole = list(simulation.play(lambda *_: first_free(simulation)))
    other = begin(pool, (0, 1), 2)[0]
    other.label(first_free(other))
    rest = list(other.play(lambda *_: first_free(other)))
    assert [step.round.index for step in rest] == [1, 2]
    assert all(same(one.after, two.after) for one, two in zip(whole[1:], rest, strict=True))


def test_picks_that_are_no_batch_end_an_episode(simulation: Simulation) -> None:
    with pytest.raises(InvalidPicks, match="already labelled"):
        list(simulation.play(lambda round_, size: round_.labelled[:, :size]))
    assert simulation.round.index == 0


def test_the_reference_is_trained_when_something_is_measured_and_once_for_a_start(begin, pool: Pool) -> None:
    simulation = begin(pool, (0, 1), 2)[0]
    trained: list[list[int]] = []
    reference = simulation.trainer.reference
    simulation.trainer.reference = lambda starts: trained.append(list(starts)) or reference(starts)
    simulation.label(first_free(simulation))
    simulation.contributions()
    assert trained == []
    first = simulation.measure()
    assert trained == [[0, 1]] and simulation.reference_accuracy.shape == (4,)
    list(simulation.play(lambda *_: first_free(simulation)))
    two, one = simulation.starts[1], simulation.starts[0]
    new = training_starts(pool, simulation.protocol, [2])[0]
    simulation.reset([one, two])
    simulation.measure()
    assert trained == [[0, 1]]
    simulation.reset([two, new])  # known by what it is, not by its place
    assert trained == [[0, 1]]
    accuracy = simulation.reference_accuracy
    assert trained == [[0, 1], [1]]
    again = begin(pool, (1, 2))[0]
    torch.testing.assert_close(accuracy, again.reference_accuracy, rtol=0, atol=0)
    assert first.hard_accuracy.shape == (4,)


def test_the_digest_tells_starts_apart(pool: Pool) -> None:
    one = draw_start(training_roles(pool, 1), 1, PROTOCOL)
    assert one.digest == draw_start(training_roles(pool, 1), 1, PROTOCOL).digest
    assert one.digest != draw_start(training_roles(pool, 2), 1, PROTOCOL).digest
    assert one.digest != draw_start(training_roles(pool, 1), 2, PROTOCOL).digest
