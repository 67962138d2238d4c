"""Named data sets: the generator does what its parameters say, the bundled sets are whole."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from envs.errors import ConfigError, DataError
from envs.pools import save_pool
from envs.pools.partition import evaluation_roles, partition, training_roles
from envs.sources import absolute_name, dataset_names, draw_from_family, is_family, open_dataset, split_names
from envs.sources.bundled import BUNDLED, DATA
from envs.sources.synthetic import make_synthetic
from envs.sources.synthetic_spec import SyntheticSpec, draw_spec, format_spec, parse_spec

SPEC = SyntheticSpec(samples=1200, classes=5, modalities=3, dim=6, seed=3)
CLEAN = make_synthetic(SPEC)
TEST = CLEAN.split == 2


def test_synthetic_is_repeatable_and_seeded() -> None:
    assert make_synthetic(SPEC).fingerprint == CLEAN.fingerprint
    assert make_synthetic(replace(SPEC, seed=4)).fingerprint != CLEAN.fingerprint


def test_synthetic_shape_and_split() -> None:
    assert {m: x.shape for m, x in CLEAN.features.items()} == dict.fromkeys(("m0", "m1", "m2"), (1200, 6))
    assert CLEAN.present.all()
    np.testing.assert_array_equal(np.bincount(CLEAN.labels), [240] * 5)
    np.testing.assert_array_equal(np.bincount(CLEAN.labels[TEST]), [60] * 5)
    assert not (CLEAN.split == 1).any()


def test_label_noise_flips_its_share_of_training_labels_only() -> None:
    noisy = make_synthetic(replace(SPEC, label_noise=0.3))
    flipped = noisy.labels != CLEAN.labels
    assert flipped.sum() == round(0.3 * (~TEST).sum())
    assert not flipped[TEST].any()
    np.testing.assert_array_equal(noisy.features["m0"], CLEAN.features["m0"])


def test_outliers_lie_far_away_in_the_training_rows() -> None:
    spec = replace(SPEC, outliers=0.1, label_noise=0.1)
    dirty = make_synthetic(spec)
    moved = (dirty.features["m0"] != CLEAN.features["m0"]).any(axis=1)
    assert moved.sum() == round(0.1 * (~TEST).sum())
    assert not (moved & TEST).any()
    distance = np.linalg.norm(dirty.features["m0"], axis=1)
    assert np.median(distance[moved]) > 2 * np.median(distance[~moved])
    # Outliers and flipped labels fall on different rows.
    assert (dirty.labels != CLEAN.labels)[~moved].sum() == round(0.1 * (~TEST).sum())


def test_missing_share_is_exact_and_leaves_each_sample_something() -> None:
    for share in (0.2, 2 / 3):
        gappy = make_synthetic(replace(SPEC, missing=share))
        assert (~gappy.present).sum() == round(share * gappy.present.size)
        assert gappy.present.any(axis=1).all()
        for m, modality in enumerate(gappy.modalities):
            assert not gappy.features[modality][~gappy.present[:, m]].any()


def test_corruption_replaces_one_present_modality() -> None:
    gaps = replace(SPEC, missing=0.4)
    before, after = make_synthetic(gaps), make_synthetic(replace(gaps, corruption=0.25))
    np.testing.assert_array_equal(before.present, after.present)
    changed = np.stack([(before.features[m] != after.features[m]).any(axis=1) for m in before.modalities], axis=1)
    assert (changed.sum(axis=1) == 1).sum() == round(0.25 * SPEC.samples)
    assert changed.sum() == round(0.25 * SPEC.samples)
    assert before.present[changed].all()


def test_imbalance_is_the_ratio_of_the_largest_to_the_smallest_class() -> None:
    pool = make_synthetic(replace(SPEC, imbalance=10.0))
    count = np.bincount(pool.labels)
    assert count.max() / count.min() == pytest.approx(10, rel=0.05)
    assert count.sum() == 1200
    assert (np.diff(count) < 0).all()


def accuracy(pool_name: str, modalities: tuple[str, ...] | None = None) -> float:
    """The accuracy of ridge regression onto one-hot labels: crude, but without a dependency."""
    pool = open_dataset(pool_name)
    parts = partition(pool)
    train, test = parts.evaluation, parts.test
    columns = [(pool.take(m, train), pool.take(m, test)) for m in modalities or pool.modalities]
    x, z = (np.concatenate(part, axis=1).astype(float) for part in zip(*columns, strict=True))
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, z = (x - mean) / spread, (z - mean) / spread
    y = np.eye(pool.num_classes)[pool.labels[train]]
    weights = np.linalg.solve(x.T @ x + 100 * np.eye(x.shape[1]), x.T @ (y - y.mean(axis=0)))
    return float(((z @ weights + y.mean(axis=0)).argmax(axis=1) == pool.labels[test]).mean())


def test_the_default_needs_all_modalities() -> None:
    together = accuracy("synthetic")
    alone = [accuracy("synthetic", (m,)) for m in ("m0", "m1", "m2")]
    assert 0.75 < together < 0.92
    assert alone[0] > alone[1] > alone[2]
    assert together > alone[0] + 0.08


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imbalanse=3", r"unknown parameter 'imbalanse'\. Did you mean 'imbalance'\?"),
        ("noise=0.7", r"label_noise is 0\.7; it must be in \[0, 0\.5\]"),
        ("corruption=nan", "corruption is nan"),
        ("missing=0.9", r"missing is 0\.9; it must be in \[0, 0\.667\] with 3 modalities"),
        ("outliers=-1", r"outliers is -1\.0"),
        ("imbalance=0.5", r"imbalance is 0\.5; it must be at least 1 and finite"),
        ("imbalance=1000", "smallest class would have"),
        ("samples=10", "smallest class would have 1 of 10"),
        ("samples=many", "samples is 'many'; it must be a whole number"),
        ("samples", "samples is 'missing'"),
        ("classes=1", "classes is 1; it must be at least 2"),
        ("modalities=0", "modalities is 0"),
        ("dim=0", "dim is 0"),
        ("seed=-1", "seed is -1"),
        ("strength=1:2", "strength has 2 values for 3 modalities"),
        ("strength=1:x:2", "strength is '1:x:2'; it must be a number"),
        ("strength=-1", "strength is -1"),
        ("seed=1,seed=2", "seed is given twice"),
        ("noise=0.1,label_noise=0.2", "label_noise is given twice"),
    ],
)
def test_bad_parameters_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_dataset(f"synthetic:{text}")


def test_parameters_are_read() -> None:
    spec = parse_spec("noise=0.3, imbalance=20,seed=1,strength=1:0.6:0.3,samples=900")
    assert spec == SyntheticSpec(label_noise=0.3, imbalance=20.0, seed=1, strength=(1.0, 0.6, 0.3), samples=900)
    assert parse_spec("strength=0.5").strengths == (0.5, 0.5, 0.5)
    assert len(parse_spec("modalities=5").strengths) == 5


SHAPES = {
    "emoji": (1600, {"image": 976, "text": 512}, 8),
    "watch": (2369, {"accelerometer": 93, "gyroscope": 93}, 7),
    "digits": (2000, {"fou": 76, "fac": 216, "kar": 64, "pix": 240, "zer": 47, "mor": 6}, 10),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets_are_whole(name: str) -> None:
    samples, dims, classes = SHAPES[name]
    pool = open_dataset(name)
    assert pool.name == name
    assert pool.num_samples == samples
    assert {m: x.shape[1] for m, x in pool.features.items()} == dims
    assert pool.num_classes == classes
    assert pool.present.all()
    assert np.bincount(pool.labels, minlength=classes).min() > 80
    assert pool.licence and pool.source
    assert f"## {name}" in (DATA / "ATTRIBUTION.md").read_text("utf-8")
    sizes = [file.stat().st_size for file in (DATA / name).rglob("*") if file.is_file()]
    assert max(sizes) < 3 * 2**20
    for roles in (training_roles(pool, 0), evaluation_roles(pool, 0)):
        for rows in vars(roles).values():
            assert set(pool.labels[rows]) == set(range(classes))


def test_bundled_contents() -> None:
    emoji, watch, digits = (open_dataset(name) for name in BUNDLED)
    assert emoji.text is not None and emoji.group is not None
    cat = emoji.text.tolist().index("grinning cat face with smiling eyes")
    assert emoji.class_names[emoji.labels[cat]] == "Smileys & Emotion"
    artists = [emoji.text.tolist().index(name) for name in ("artist", "man artist", "woman artist")]
    assert len(set(emoji.group[artists])) == 1
    assert not any("facing right" in text for text in emoji.text)
    assert watch.group is not None
    assert len(set(watch.group)) == 10
    assert digits.class_names[digits.labels[0]] == "0"
    assert accuracy("emoji", ("image",)) != pytest.approx(accuracy("emoji", ("text",)), abs=0.02)


def test_every_emoji_has_a_small_picture() -> None:
    emoji = open_dataset("emoji")
    assert emoji.picture is not None
    pictures = [Path(path).read_bytes() for path in emoji.picture.tolist()]
    assert len(pictures) == 1600
    for png in pictures:
        assert png.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
        assert png.endswith(b"IEND\xaeB`\x82")
        assert struct.unpack(">II", png[16:24]) == (32, 32)
        assert b"tRNS" in png  # transparent around the emoji
    assert len(set(pictures)) > 1590
    files = set((DATA / "emoji" / "pictures").iterdir())
    assert files == {Path(path) for path in emoji.picture.tolist()}
    assert sum(file.stat().st_size for file in files) < 1.5e6
    assert all(open_dataset(name).picture is None for name in ("watch", "digits"))


def test_paths_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pool(CLEAN, tmp_path / "mine")
    np.savez(tmp_path / "mine.npz", x_a=np.ones((4, 1)), y=np.array([0, 1, 0, 1]))
    assert open_dataset(str(tmp_path / "mine")).fingerprint == CLEAN.fingerprint
    assert open_dataset(tmp_path / "mine.npz").num_samples == 4
    monkeypatch.chdir(tmp_path)
    assert open_dataset("mine").fingerprint == CLEAN.fingerprint


def test_unknown_names_list_the_known_ones() -> None:
    assert dataset_names() == ["emoji", "watch", "digits", "synthetic"]
    with pytest.raises(DataError, match=r"'emojy'\. Did you mean 'emoji'\?.*watch, digits"):
        open_dataset("emojy")
    with pytest.raises(DataError, match=r"nowhere\.npz: no such file"):
        open_dataset("nowhere.npz")
    with pytest.raises(DataError, match="data/nowhere: no such file"):
        open_dataset("data/nowhere")


def test_list_of_names_keeps_the_parameters_of_synthetic_together():
    text = "emoji,synthetic:noise=0.3,imbalance=20,watch,./a.npz"
    assert split_names(text) == ["emoji", "synthetic:noise=0.3,imbalance=20", "watch", "./a.npz"]


def test_only_paths_become_absolute():
    assert absolute_name("emoji") == "emoji" and absolute_name("synthetic:seed=1") == "synthetic:seed=1"
    assert absolute_name("a.npz") == str(Path("a.npz").absolute())


def test_a_family_draws_another_pool_each_time() -> None:
    rng = np.random.default_rng(0)
    specs = [draw_spec(rng) for _ in range(200)]
    assert {spec.modalities for spec in specs} == {1, 2, 3, 4}
    assert min(spec.classes for spec in specs) == 2 and max(spec.classes for spec in specs) > 16
    for name in ("label_noise", "outliers", "corruption", "missing"):
        clean = sum(getattr(spec, name) == 0 for spec in specs)
        assert 60 < clean < 180, name
    assert sum(spec.imbalance > 1 for spec in specs) > 40
    assert all(1000 <= spec.samples <= 3000 and 4 <= spec.dim <= 64 for spec in specs)
    assert all(0.9 < np.linalg.norm(spec.strengths) < 2.3 for spec in specs)
    assert len({spec.seed for spec in specs}) == 200


def test_drawn_pools_have_names_that_open_them() -> None:
    for spec in (draw_spec(np.random.default_rng(seed)) for seed in range(20)):
        assert parse_spec(format_spec(spec)) == spec
    family = "synthetic-family:label_noise=0.3,classes=4"
    assert is_family(family) and not is_family("synthetic:classes=4")
    first, second = (draw_from_family(family, np.random.default_rng(seed)) for seed in (1, 2))
    assert first != second
    assert first == draw_from_family(family, np.random.default_rng(1))
    assert first != draw_from_family(f"{family},seed=5", np.random.default_rng(1))
    pool = open_dataset(first)
    assert pool.num_classes == 4 and "label_noise=0.3" in pool.notes


def test_a_family_is_no_pool_and_has_the_parameters_of_one() -> None:
    with pytest.raises(ConfigError, match="is no single pool"):
        open_dataset("synthetic-family:noise=0.3")
    for text, message in (
        ("imbalanse=3", "Did you mean 'imbalance'"),
        ("noise=0.7", "label_noise is 0.7"),
        ("modalities=0", "modalities is 0"),
        ("seed=-1", "seed is -1"),
        ("classes=20,samples=100", "smallest class"),
    ):
        with pytest.raises(ConfigError, match=message):
            draw_from_family(f"synthetic-family:{text}", np.random.default_rng(0))
    names = "digits,synthetic-family:noise=0.3,classes=4,emoji,synthetic-family"
    assert split_names(names) == ["digits", "synthetic-family:noise=0.3,classes=4", "emoji", "synthetic-family"]
    assert absolute_name("synthetic-family") == "synthetic-family"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("emoji, watch", ["emoji", "watch"]),
        ('"dir, comma/a,b.npz",emoji', ["dir, comma/a,b.npz", "emoji"]),
        ('emoji, "a,b"', ["emoji", "a,b"]),
        ("synthetic:noise=0.3,seed=1,emoji", ["synthetic:noise=0.3,seed=1", "emoji"]),
    ],
)
def test_names_in_a_list(text: str, names: list[str]) -> None:
    assert split_names(text) == names


@pytest.mark.parametrize("name", ["a,b.npz", "dir, comma/x.npz", "a,b,c,d"])
def test_a_path_with_a_comma_needs_quotes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    for text in (name, f"emoji,{name}", f"{name},watch"):
        with pytest.raises(ConfigError) as error:
            split_names(text)
        assert f"The path {name} holds a comma" in str(error.value) and f"'\"{name}\"'" in str(error.value)
    assert split_names(f'emoji,"{name}"') == ["emoji", name]
