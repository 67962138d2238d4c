"""Everything a comparison writes, from results that nobody played."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from envs.errors import ConfigError
from evaluation.report import tables
from evaluation.report.findings import cautions, findings, headline, training_gain, training_note
from evaluation.report.formats import WIDTH
from evaluation.report.gallery import PER_ROUND, PICTURE_LIMIT, TEXT_LENGTH, make_gallery
from evaluation.report.page import render_page
from evaluation.report.tables import text_table
from evaluation.report.write import file_names, write_report
from evaluation.runs import Played
from evaluation.summarise import summarise, summarise_all
from evaluation.summary import Comparison, Seconds, Summary
from tests.support.fabricated import PROTOCOL, make_played, make_pool

PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)
GAINS = {"learned": 0.1, "other": 0.09, "random": 0.0, "margin": 0.05, "worse": -0.08}
EVIL = "</script><script>alert(1)</script>"


def played(**changes) -> Played:
    arguments = {"pool": make_pool(), "gains": GAINS, "policies": ("learned", "other"), "seeds": 12}
    return make_played(**(arguments | changes))


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Comparison, Path]:
    """The report on one data set."""
    out, p = tmp_path_factory.mktemp("single"), played()
    return p, write_report([p], out), out


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Played], Comparison, Path]:
    """The report on three data sets, two of one name, with other modalities."""
    out = tmp_path_factory.mktemp("several")
    gains = {"random": 0.0, "margin": 0.05, "badge": 0.04}
    pools = [make_pool("toy"), make_pool("toy", ("sound",)), make_pool("Other/set", ("sound", "text", "touch"))]
    all_played = [make_played(pool, gains) for pool in pools]
    return all_played, write_report(all_played, out), out


def test_one_data_set_leaves_these_files(single: tuple) -> None:
    p, comparison, out = single
    files = {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file() and "tfevents" not in f.name}
    pictures = {
        f"pictures/{n}.{kind}"
        for n in ("toy_curves", "toy_differences", "toy_balance", "penalty")
        for kind in ("png", "svg")
    }
    tables_ = {"report.html", "summary.json", "table.md", "rounds.parquet", "rounds.csv"}
    assert files == tables_ | pictures
    assert {f.name for f in (out / "tensorboard" / "toy").iterdir()} == set(p.runs)
    assert comparison.to_json() == json.loads((out / "summary.json").read_text())
    for name in pictures:
        start = (out / name).read_bytes()[:8]
        assert start == PNG[:8] if name.endswith("png") else start.startswith(b"<svg")


def test_rounds_of_several_data_sets(several: tuple) -> None:
    all_played, _, out = several
    table = pq.read_table(out / "rounds.parquet")
    assert table.num_rows == 3 * 3 * 8 * 5
    rows = table.to_pylist()
    assert {r["dataset"] for r in rows} == {"toy", "toy-2", "Other/set"}
    for row in rows:
        assert (row["shapley_touch"] is not None) == (row["dataset"] == "Other/set")
        assert (row["accuracy_picture"] is not None) == (row["dataset"] == "toy")
        assert (row["seconds_scoring"] is None) == (row["round"] == 0)
    r = all_played[0].runs["margin"]
    row = next(x for x in rows if (x["dataset"], x["strategy"], x["seed"], x["round"]) == ("toy", "margin", 10_002, 3))
    assert row["accuracy"] == r.accuracy[2, 3]
    assert row["shapley_text"] == r.shapley[2, 3, 1]
    assert (row["labels"], row["peak_memory"], row["all_labels_accuracy"]) == (25, 2.5e6, 0.85)
    assert row["sample_ids"] == [f"id{i}" for i in r.picked[2, 2]]
    flat = pacsv.read_csv(out / "rounds.csv")
    assert flat.column_names == table.column_names
    assert [json.loads(t) for t in flat["sample_ids"].to_pylist()] == table["sample_ids"].to_pylist()
    assert flat["accuracy"].to_pylist() == pytest.approx(table["accuracy"].to_pylist())


def test_what_holds_across_data_sets_is_written(several: tuple) -> None:
    _, comparison, out = several
    assert {f.name for f in (out / "pictures").iterdir()} >= {"toy-2_curves.svg", "other_set_curves.svg", "penalty.png"}
    assert {f.name for f in (out / "tensorboard").iterdir()} == {"toy", "toy-2", "other_set"}
    text = text_table(comparison)
    assert "Across data sets" in text and "mean rank" in text
    assert "Significantly above random: margin, badge on 3 of 3 data sets." in text.replace("\n", " ")
    markdown = (out / "table.md").read_text()
    assert markdown.count("**Pairwise penalties**") == 4
    assert "**Mean rank**" in markdown


def test_labels_that_are_not_reached_are_said_so(single: tuple) -> None:
    _, comparison, _ = single
    assert ["worse", "not reached", "–"] in tables.saving(comparison.datasets["toy"]).rows
    assert "> 30" in text_table(comparison)


@pytest.mark.parametrize("seeds", [1, 5, 8, 20])
def test_terminal_table_is_narrow_and_warns(seeds: int) -> None:
    gains = {"a policy with a very long name indeed, longer than any table": 0.1, "random": 0.0, "x" * 80: -0.3}
    p = make_played(make_pool("d" * 120), gains, (next(iter(gains)),), seeds=seeds)
    text = text_table(summarise_all([p]))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert ("too few for any test" in text) == (seeds < 6)
    assert ("not yet a claim" in text) == (6 <= seeds < 20)
    assert "looked at 123 labels" in text


def with_card(**card) -> Summary:
    """A summary whose judged policy has this card."""
    return summarise(played(policies=("learned",), facts={"policies": {"learned": card}}))


def test_labels_of_generated_pools_are_told_apart() -> None:
    sources = [{"fingerprint": "ab", "labels": 600}, {"fingerprint": "", "labels": 2400}, {"fingerprint": "cd"}]
    note = training_note(with_card(labels_used=3000, trained_on=sources))
    assert note == "Training 'learned' looked at 600 labels, and at 2,400 of generated pools."
    assert training_note(with_card(labels_used=600, trained_on=sources[:1])).endswith("looked at 600 labels.")
    assert training_note(summarise(played(policies=()))) == ""


def test_what_training_started_from_is_said() -> None:
    sources = [{"name": "emoji", "fingerprint": "ab"}, *({"name": f"family{n}", "fingerprint": ""} for n in range(2))]
    note = training_note(with_card(labels_used=600, trained_on=[], pretrained_on=sources))
    assert note.endswith("600 labels. It started from a policy that was trained on emoji, generated pools.")


def test_what_training_added_is_the_difference_to_the_policy_that_ships() -> None:
    gains = {"learned": 0.1, "pretrained": 0.05, "random": 0.0}
    toy = make_played(make_pool(), gains, ("learned", "pretrained"), seeds=12)
    comparison = summarise_all([toy])
    summary = comparison.datasets["toy"]
    pair = summary.pair("learned", "pretrained")
    sentence = training_gain(summary)
    assert pair.mean > 0.02
    assert f"learned minus the policy that ships is {100 * pair.mean:+.2f} points of AULC [" in sentence
    assert "a significant difference" in sentence
    assert sentence in " ".join(text_table(comparison).split())
    assert sentence in tables.markdown(comparison)
    assert sentence in html.unescape(render_page([toy], comparison))
    assert training_gain(summarise(played(policies=("learned",)))) == ""
    assert training_gain(summarise(played(policies=()))) == ""


def test_headline_says_what_the_test_says() -> None:
    summary = summarise(played())
    assert summary.judged_pairs().keys() == {"other", "random", "margin", "worse"}
    sentence = headline(summary, "toy")
    assert sentence.startswith("On toy, learned is above other, the strongest of the others, by +")
    assert "learned is significantly above random" in findings(summary)[0]
    changes = {"mean": -0.01, "ci95": (-0.02, 0.001), "verdict": "no difference shown"}
    pairs = [dataclasses.replace(p, **changes if p.second == "other" else {}) for p in summary.pairs]
    doubtful = dataclasses.replace(summary, pairs=pairs)
    assert "learned is below other" in headline(doubtful, "toy")
    assert "no difference is shown" in headline(doubtful, "toy")
    assert findings(doubtful, brief=True)[0].startswith("learned is significantly above 3 of 4.")
    assert "inconclusive" in headline(summarise(played(seeds=3)), "toy")


def test_too_many_comparisons_for_the_seeds_are_said() -> None:
    assert len(cautions(summarise(played(seeds=20)))) == 0
    crowded = cautions(summarise(played(seeds=8)))  # 7 comparisons, the least p is 2 / 256
    assert "Over 7 comparisons, 8 seeds cannot" in crowded[1]
    assert {pair.verdict for pair in summarise(played(seeds=8)).pairs} == {"no difference shown"}


def test_without_policies_random_is_the_measure() -> None:
    summary = summarise(played(policies=()))
    assert {(p.first, p.second) for p in summary.pairs} == {(n, "random") for n in GAINS if n != "random"}
    assert "On toy, learned, the best strategy, is above random" in headline(summary, "toy")
    assert summary.labels_used is None
    comparison = summarise_all([make_played(make_pool(), {"margin": 0.1})])
    alone = comparison.datasets["toy"]
    assert alone.label_saving is None and alone.pairs == [] and alone.penalty is None
    assert "nothing to compare" in text_table(comparison)


def test_one_strategy_one_seed_and_unknown_figures(tmp_path: Path) -> None:
    p = make_played(make_pool(), {"random": 0.0}, seeds=1)
    nothing = np.full((1, PROTOCOL.rounds + 1), np.nan)
    runs = dataclasses.replace(
        p.runs["random"],
        all_labels_accuracy=np.array([np.nan]),
        **{f"seconds_{k}": nothing for k in ("inference", "scoring", "picking", "train")},
    )
    summary = write_report([dataclasses.replace(p, runs={"random": runs})], tmp_path).datasets["toy"]
    assert summary.all_labels_accuracy is None
    assert summary.strategies["random"].seconds == Seconds(None, None, None, None)
    assert (tmp_path / "report.html").is_file()


def test_tensorboard_shows_the_mean_curve_once(single: tuple) -> None:
    p, _, out = single
    write_report([p], out)  # again: it replaces the events
    folder = out / "tensorboard" / "toy" / "margin"
    assert len(list(folder.iterdir())) == 1
    events = EventAccumulator(str(folder)).Reload()
    scalars = events.Scalars("test/accuracy")
    assert [s.step for s in scalars] == [10, 15, 20, 25, 30]
    assert [s.value for s in scalars] == pytest.approx(p.runs["margin"].accuracy.mean(0).tolist(), abs=1e-6)
    tags = {"test/weakest_modality", "test/soft_accuracy", "balance/gap", "balance/shapley_text", "balance/head_text"}
    assert tags <= set(events.Tags()["scalars"])


def test_files_of_the_user_stay_and_a_failed_write_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.png").write_bytes(PNG)
    write_report([make_played(make_pool(), {"random": 0.0})], tmp_path)
    assert (tmp_path / "pictures" / "holiday.png").read_bytes() == PNG

    def fail(_: object, path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    monkeypatch.setattr("evaluation.report.write.pq.write_table", fail)
    with pytest.raises(ConfigError, match=f"Cannot write the report: {tmp_path}: No space left on device"):
        write_report([make_played(make_pool(), {"random": 0.1})], tmp_path)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("mine")
    with pytest.raises(ConfigError, match="pictures"):
        write_report([make_played(make_pool(), {"random": 0.0})], tmp_path)


def test_file_names_are_safe_and_distinct() -> None:
    names = ["a/b", "a b", "A_B", "..", "", "../../etc", "ü" * 3, "x" * 300]
    files = file_names(names)
    assert len(set(files.values())) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_=][a-z0-9_=.-]*", f) and len(f) < 100 for f in files.values())


def test_markdown_keeps_names_in_their_cells() -> None:
    p = make_played(make_pool("a|b"), {"random": 0.0, "x|y\n<b>": 0.1})
    text = tables.markdown(summarise_all([p]))
    assert "x\\|y &lt;b>" in text and "<b>" not in text
    columns = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| random")}
    assert columns == {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| x")}


def test_gallery_holds_each_picture_once_within_its_limits(tmp_path: Path) -> None:
    contents = {
        "a.png": PNG,
        "big.png": PNG + bytes(PICTURE_LIMIT),
        "page.svg": b"<svg/>",
        "b.jpg": b"\xff\xd8\xff" + PNG,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    files = [*contents, "gone.png", "", "a.png"]
    picture = np.array([str(tmp_path / f) if f else "" for f in files] * 10)[:60]
    text = np.array(["long " * 40, "short"] * 30)
    p = make_played(make_pool(picture=picture, text=text), {"random": 0.0, "margin": 0.1})
    gallery = make_gallery(p, budget=10**6)
    assert len(gallery["pictures"]) == len(set(gallery["pictures"])) == 2
    assert set(gallery["left_out"]) == {"larger than 64 kB", "not PNG, JPEG, GIF or WebP", "not readable"}
    assert max(len(t) for _, t, _ in gallery["samples"]) <= TEXT_LENGTH
    assert gallery["seed"] == 10_000
    first = gallery["rounds"]["margin"][1][0]
    row = int(p.runs["margin"].picked[0, 1, 0])
    assert gallery["samples"][first][0] == p.pool.labels[row]
    none_left = make_gallery(p, budget=0)
    assert none_left["pictures"] == [] and "beyond the space" in str(none_left["left_out"])


def test_gallery_counts_what_it_does_not_show() -> None:
    protocol = dataclasses.replace(PROTOCOL, initial_labels=4, batch_size=PER_ROUND + 5, rounds=2)
    p = make_played(make_pool(text=np.array(["t"] * 60)), {"random": 0.0}, protocol=protocol)
    gallery = make_gallery(p, 0)
    assert [len(r) for r in gallery["rounds"]["random"]] == [PER_ROUND, PER_ROUND]
    assert (gallery["more"], gallery["more_initial"]) == (5, 0)


class _Elements(HTMLParser):
    """Names of elements and their addresses."""

    def __init__(self, page: str):
        super().__init__()
        self.count: dict[str, int] = {}
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.addresses += [v or "" for k, v in attributes if k in ("src", "href", "action", "data", "poster")]


def test_page_stands_alone_and_names_stay_text(tmp_path: Path) -> None:
    pool = make_pool(EVIL, text=np.array([EVIL] * 60), class_names=(EVIL, "bee", "cat"))
    p = make_played(pool, {EVIL: 0.1, "random": 0.0}, (EVIL,))
    write_report([p], tmp_path)
    page = (tmp_path / "report.html").read_text()
    elements = _Elements(page)
    assert elements.count["script"] == 3  # data, Vega, ours
    assert "alert(1)</script>" not in page
    assert elements.addresses and all(a.startswith("#") for a in elements.addresses)
    assert "default-src 'none'" in page and "unsafe-eval" not in page
    assert len(page) < 1.5e6


def test_everything_is_said_on_the_page(single: tuple) -> None:
    _, comparison, out = single
    summary = comparison.datasets["toy"]
    page = (out / "report.html").read_text()
    for text in (
        "0123456789abcdef",
        "start3",
        "a cpu",
        summary.facts["dataset_fingerprint"],
        "A note.",
        "960",
        "not reached",
    ):
        assert text in page
    assert cautions(summary)[0] in page
