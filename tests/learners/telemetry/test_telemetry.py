"""What TensorBoard shows: every tag is explained, what is drawn is what happened, and the Projector can read it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from envs.models.frozen.trainer import FrozenConfig
from envs.pools.partition import partition, training_roles
from envs.simulation import ProtocolConfig
from envs.source import draw_start
from evaluation.report.tensorboard import write_board
from learners.algorithms import drawn as board_drawn
from learners.algorithms.drawn import drawn_values
from learners.telemetry import projector as board_projector
from learners.telemetry.board import Board
from learners.telemetry.exported import play
from learners.telemetry.projector import NEVER, pool_points, reduced, write_projector
from learners.training import train
from policies.strategies import get_strategy
from tests.support.evolution import settings
from tests.support.fabricated import make_played, make_pool
from tests.support.paths import ROOT
from tests.support.training import DATASET, run_here, train_command

KINDS = ("scalars", "histograms", "images", "tensors")
PLACE = re.compile(r"<\w+>")


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance=dict.fromkeys(KINDS, 0))
    found.Reload()
    return found


def tags(folder: Path) -> set[str]:
    found = events(folder).Tags()
    return {tag.removesuffix("/text_summary") for kind in KINDS for tag in found[kind]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, one_ray: None) -> list[Path]:
    """Tiny runs that write, together, everything there is to write."""
    folder = tmp_path_factory.mktemp("runs")
    appo = ("--algorithm", "appo", "--num-env-runners", "1", "--set", "learner.iterations=2")
    assert run_here([*train_command(folder / "appo"), *appo]) == 0
    train(settings(), folder / "evolution")
    return [folder / "appo", folder / "evolution"]


def test_every_tag_is_explained_and_every_explanation_has_a_tag(runs: list[Path], tmp_path: Path) -> None:
    board = Board(tmp_path / "trial")
    board.hparams({"reward": {"hard_third": 0.2}}, {"aulc": 0.5})
    board.close()
    write_board(make_played(make_pool(), {"random": 0.0}), "random", tmp_path / "compared")
    folders = [tmp_path / "trial", tmp_path / "compared"]
    folders += [f for out in runs for f in (out / "tensorboard", out / "tensorboard" / "exported")]
    written = set().union(*map(tags, folders)) - {"_hparams_/experiment", "_hparams_/session_start_info"}
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    explained = re.findall(r"^\| `([^`]+)` \| \S", text, re.MULTILINE)
    assert len(explained) == len(set(explained)) > 40

    def matching(pattern: str) -> set[str]:
        expression = "[^/]+".join(map(re.escape, PLACE.split(pattern)))
        return {tag for tag in written if re.fullmatch(expression, tag)}

    unexplained = written.difference(*map(matching, explained))
    assert not unexplained
    assert [pattern for pattern in explained if not matching(pattern)] == []


def test_pictures_of_the_page_are_there_and_small() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    pictures = [ROOT / "docs" / name for name in re.findall(r"\]\((\w+\.png)\)", text)]
    assert len(pictures) >= 4
    assert all(picture.stat().st_size < 200_000 for picture in pictures)


def test_card_says_how_the_run_came_about(runs: list[Path]) -> None:
    (event,) = events(runs[0] / "tensorboard").Tensors("run/card/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    for part in ("appo", "run.py train", "--num-env-runners 1", DATASET.partition(":")[0], "ray", "rounds: 3"):
        assert part in text


def test_the_exported_policy_is_shown_by_number_of_labels(runs: list[Path]) -> None:
    found = events(runs[0] / "tensorboard" / "exported")
    assert [e.step for e in found.Histograms("picked_difficulty/synthetic")] == [6, 9, 12]  # before each batch
    assert [e.histogram_value.num for e in found.Histograms("picked_difficulty/synthetic")] == [4 * 3] * 3
    (picture,) = found.Images("learning_curve/synthetic")
    assert picture.encoded_image_string.startswith(b"\x89PNG") and picture.step == 15
    assert not list(runs[0].rglob(".unfinished*"))


def test_resuming_a_finished_run_makes_up_for_what_is_missing(runs: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs[1], copy)
    before = tags(copy / "tensorboard" / "exported")
    shutil.rmtree(copy / "tensorboard" / "exported")
    train(settings(), copy, resume=True)
    assert tags(copy / "tensorboard" / "exported") == before


def test_drawn_values_are_those_of_the_picks() -> None:
    picked = np.array([[[6, 7], [0, 1]], [[10, 11], [12, 13]]], np.float16)  # [T, b, F]
    infos = [{"amcb/a": 0.9}, {"difficulty/picked": 0.1, "amcb/a": 0.5}, {"difficulty/picked": 0.2, "amcb/a": 0.6}]
    values = drawn_values([picked, picked], [infos, infos], ("margin", "density"))
    assert {tag: v.tolist() for tag, v in values.items()} == {
        "picked_rank/margin": [6, 0, 10, 12] * 2,
        "picked_rank/density": [7, 1, 11, 13] * 2,
        "difficulty_distribution/picked": [0.1, 0.2] * 2,
        "amcb_weight_distribution/a": [0.5, 0.6] * 2,
    }
    assert drawn_values([picked], [infos], ()).keys() == {
        "difficulty_distribution/picked",
        "amcb_weight_distribution/a",
    }


@given(st.integers(1, 10 * board_drawn.MOST))
def test_thinning_keeps_both_ends_and_no_more_than_needed(count: int) -> None:
    thinned = board_drawn.thinned(np.arange(count))
    assert len(thinned) == min(count, board_drawn.MOST)
    assert (thinned[0], thinned[-1]) == (0, count - 1)
    assert (np.diff(thinned) > 0).all()


@given(arrays(np.float32, st.tuples(st.integers(2, 30), st.integers(1, 90)), elements=st.floats(-5, 5, width=32)))
def test_reduction_keeps_distances_as_far_as_dimensions_allow(x: np.ndarray) -> None:
    y = reduced(x)
    assert y.shape[0] == len(x) and y.shape[1] <= board_projector.DIMENSIONS
    # At most 30 rows span fewer than 64 dimensions, so nothing is lost.
    distances = [np.linalg.norm(z[:, None] - z[None], axis=2) for z in (x, y)]
    np.testing.assert_allclose(*distances, atol=2e-2)


def test_projector_has_every_bought_label_in_its_round(
    missing_pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_projector, "ROWS", 40)
    start = draw_start(training_roles(missing_pool, 0), 0, ProtocolConfig(8, 4, 3))
    rest = np.setdiff1d(np.arange(len(start.roles.pool)), start.initial)[::-1]
    features = FrozenConfig().trainer(missing_pool, partition(missing_pool).policy).begin([start]).inputs()[0]
    write_projector(tmp_path, [pool_points("a/b", missing_pool, features, start, rest[:12].reshape(3, 4))])
    config = (tmp_path / "projector_config.pbtxt").read_text("utf-8")
    (features, samples) = re.findall(r'path: "(.+)"', config)[::-1]
    x = np.loadtxt(tmp_path / features, delimiter="\t", ndmin=2)
    head, *rows = [line.split("\t") for line in (tmp_path / samples).read_text("utf-8").splitlines()]
    assert [int(n) for n in re.findall(r"tensor_shape: (\d+)", config)] == list(x.shape) == [40, 18]
    assert head == list(board_projector.COLUMNS)
    times = {when: [row[4] for row in rows if row[1] == when] for when in {row[1] for row in rows}}
    ids = missing_pool.ids[start.roles.pool]
    assert sorted(times["initial"]) == sorted(ids[start.initial])
    assert sorted(times["round 02"]) == sorted(ids[rest[4:8]])
    assert len(times[NEVER]) == 40 - 8 - 12
    stages = {"round 01": "early", "round 02": "middle", "round 03": "late", "initial": "initial", NEVER: NEVER}
    assert {row[1]: row[2] for row in rows} == stages
    for row, features_ in zip(rows, x, strict=True):
        sample = int(np.flatnonzero(missing_pool.ids == row[4])[0])
        assert row[0] == missing_pool.class_names[missing_pool.labels[sample]]
        has = [m for m, there in zip(missing_pool.modalities, missing_pool.present[sample], strict=True) if there]
        assert row[3] == "+".join(has)
        assert (features_.reshape(3, 6).any(1) == missing_pool.present[sample]).all()  # absent ones are zero


def test_play_records_what_the_strategy_did(missing_pool, begin) -> None:
    simulation, _ = begin(missing_pool, seeds=(0, 1))
    starts = simulation.starts
    played = play(simulation, starts, get_strategy("margin"))
    assert played.accuracy.shape == (2, 4) and played.picks.shape == (2, 3, 4)
    assert played.difficulty.shape == (3, 8) and played.contributions.shape == (3, 3, 8)
    assert (simulation.round.labelled[:, 8:].numpy() == played.picks.reshape(2, -1)).all()
    assert played.accuracy[:, -1].tolist() == simulation.measure().accuracy.tolist()
    assert (played.difficulty > 0).all()
    columns = [missing_pool.present[s.roles.pool[p]] for s, p in zip(starts, played.picks[:, 0], strict=True)]
    absent = ~np.concatenate(columns)  # [S * b, M] of the first round
    assert absent.any() and np.abs(played.contributions[0].T[absent]).max() < 1e-6
    assert np.abs(played.contributions[0].T[~absent]).min() > 1e-6


def test_hparams_are_read_as_one_trial(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.iteration(1, {"aulc": 0.4})
    board.close()
    board = Board(tmp_path)  # as a sweep does, after the trial
    given_ = {"reward": {"hard_third": 0.25, "baselines": ("badge", "margin")}, "learner": {"copies": 8}}
    board.hparams(given_, {"aulc": 0.5, "weakest": 0.25})
    board.close()
    found = events(tmp_path)
    assert [e.step for e in found.Scalars("accuracy/aulc")] == [1]
    assert found.Scalars("result/weakest")[0].value == 0.25
    content = found.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    assert values["reward.hard_third"].number_value == 0.25 and values["learner.copies"].number_value == 8
    assert values["reward.baselines"].string_value == "badge, margin"


def test_histograms_leave_out_what_is_not_finite(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.histograms(1, {"a": np.array([0.0, np.nan, 1.0, np.inf]), "b": np.array([np.nan]), "c": np.zeros((2, 2))})
    board.close()
    found = events(tmp_path)
    assert found.Tags()["histograms"] == ["a", "c"]
    assert found.Histograms("a")[0].histogram_value.num == 2
