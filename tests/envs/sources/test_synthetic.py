"""How modalities of generated pools share information, and what differs between modalities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from envs.errors import ConfigError
from envs.pools import Pool
from envs.sources import draw_from_family, open_dataset
from envs.sources.synthetic import make_synthetic
from envs.sources.synthetic_spec import SyntheticSpec, draw_spec, format_spec, parse_spec

STRONG = SyntheticSpec(samples=2400, classes=4, modalities=2, dim=12, strength=2.5, seed=7)
BOTH = ("m0", "m1")


def neighbours(pool: Pool, modalities: tuple[str, ...] = BOTH, learn: int = 1500) -> float:
    """The accuracy of the nearest neighbour on the test rows: it sees what any set of modalities tells together."""
    train, test = np.flatnonzero(pool.split != 2)[:learn], np.flatnonzero(pool.split == 2)
    x, z = (np.concatenate([pool.take(m, rows) for m in modalities], axis=1) for rows in (train, test))
    distance = (x**2).sum(1) - 2 * z @ x.T
    return float((pool.labels[train][distance.argmin(1)] == pool.labels[test]).mean())


def means(pool: Pool, modality: str) -> float:
    """The accuracy of the nearest class mean in one modality."""
    train, test = (np.flatnonzero((pool.split == 2) == judged) for judged in (False, True))
    x, z = pool.take(modality, train), pool.take(modality, test)
    centres = np.stack([x[pool.labels[train] == c].mean(0) for c in range(pool.num_classes)])
    nearest = ((z[:, None] - centres) ** 2).sum(2).argmin(1)
    return float((nearest == pool.labels[test]).mean())


# What the generator made before it had the parameters fragments, unique and synergy, and shares for each modality.
BEFORE = {
    "": "c9bc90a4bfad0e772e9b743d677f7c4be63bedb69304578c4359e8ad569df60f",
    "samples=600,classes=4,modalities=2,dim=6,strength=1:0.5,missing=0.3,corruption=0.2,label_noise=0.2,outliers=0.05,"
    "imbalance=5,seed=3": "0e929ad02e1a1b4d84fe35100910003235a687131a66524a26ed8333f7e9bc48",
    "samples=300,classes=3,modalities=1,dim=4,strength=0.7,label_noise=0.1,seed=8": (
        "678101d66c699cd75e8b864368f8e8b13dc55a247004eacf1bc0637500d7332c"
    ),
    "samples=500,classes=5,modalities=4,dim=3,missing=0.5,corruption=1,seed=11": (
        "09418612152df216e4d90ed3db682b56ea739687d122cedf685bc14563190fb3"
    ),
}


@pytest.mark.parametrize("text", BEFORE)
def test_pools_of_earlier_versions_stay_as_they_were(text: str) -> None:
    assert make_synthetic(parse_spec(text)).fingerprint == BEFORE[text]


@pytest.mark.parametrize(
    ("family", "name", "then"),
    [
        (
            "synthetic-family",
            "samples=2610,classes=4,modalities=3,dim=12,strength=0.798:0.577:0.404,label_noise=0.016,seed=248528775",
            57828123,
        ),
        (
            "synthetic-family:modalities=3,missing=0.3,corruption=0.3",
            "samples=2610,classes=4,modalities=3,dim=12,strength=0.798:0.577:0.404,corruption=0.3,missing=0.3,"
            "label_noise=0.016,seed=248528775",
            1825159769,
        ),
    ],
)
def test_families_of_earlier_versions_draw_what_they_drew(family: str, name: str, then: int) -> None:
    rng = np.random.default_rng(5)
    drawn = [draw_from_family(family, rng) for _ in range(40)]
    assert parse_spec(drawn[0].partition(":")[2]) == parse_spec(name)
    assert rng.integers(2**31) == then  # no number more or less for any of the pools


def test_shared_information_is_in_each_modality() -> None:
    pool = make_synthetic(STRONG)
    assert min(neighbours(pool, (m,)) for m in BOTH) > 0.97


def test_unique_information_is_in_one_modality_each() -> None:
    pool = make_synthetic(replace(STRONG, unique=1.0))
    for m in BOTH:  # one of two digits: two of the four classes look alike
        assert neighbours(pool, (m,)) == pytest.approx(0.5, abs=0.06)
    assert neighbours(pool) > 0.97


def test_synergistic_information_is_in_no_modality_alone() -> None:
    pool = make_synthetic(replace(STRONG, synergy=1.0))
    for m in BOTH:
        assert neighbours(pool, (m,)) == pytest.approx(0.25, abs=0.06)
        assert means(pool, m) == pytest.approx(0.25, abs=0.06)
    assert neighbours(pool) > 0.9


def test_synergy_of_three_is_in_no_two_of_them() -> None:
    spec = SyntheticSpec(samples=2400, classes=2, modalities=3, dim=12, strength=2.5, synergy=1.0, seed=7)
    pool = make_synthetic(spec)
    for pair in (("m0", "m1"), ("m0", "m2"), ("m1", "m2")):
        assert neighbours(pool, pair) == pytest.approx(0.5, abs=0.06)
    assert neighbours(pool, ("m0", "m1", "m2")) > 0.9


@pytest.mark.parametrize("classes", [2, 3, 8, 27])
@pytest.mark.parametrize("modalities", [2, 3])
def test_unique_parts_determine_the_class_together(classes: int, modalities: int) -> None:
    spec = SyntheticSpec(samples=1500, classes=classes, modalities=modalities, dim=12, strength=6.0, unique=1.0, seed=1)
    pool = make_synthetic(spec)
    assert neighbours(pool, pool.modalities) > 0.95
    alone = max(neighbours(pool, (m,)) for m in pool.modalities)
    assert alone < 0.7 or classes == 2  # one bit is in one modality, and the others hold nothing


def test_shares_of_interactions_mix_in_proportion() -> None:
    pool = make_synthetic(replace(STRONG, unique=0.3, synergy=0.3))
    expected = 0.4 * 1 + 0.3 * 0.5 + 0.3 * 0.25
    assert neighbours(pool, ("m0",)) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("parameter", ["unique", "synergy"])
def test_interactions_change_their_share_of_the_rows_and_nothing_else(parameter: str) -> None:
    gaps = replace(STRONG, missing=0.2, label_noise=0.1)
    before, after = make_synthetic(gaps), make_synthetic(replace(gaps, **{parameter: 0.25}))
    np.testing.assert_array_equal(before.labels, after.labels)
    np.testing.assert_array_equal(before.present, after.present)
    for m, modality in enumerate(before.modalities):
        changed = (before.features[modality] != after.features[modality]).any(1)
        assert changed[before.present[:, m]].mean() == pytest.approx(0.25, abs=0.03)
    more = make_synthetic(replace(gaps, unique=0.25, synergy=0.25))
    moved = (more.features["m0"] != after.features["m0"]).any(1)
    same = (before.features["m0"] != after.features["m0"]).any(1)
    assert not (moved & same).any()  # unique and synergistic samples are different ones


def test_a_fragmented_modality_takes_more_labels_and_tells_as_much() -> None:
    whole, split = make_synthetic(STRONG), make_synthetic(replace(STRONG, fragments=(1, 8)))
    np.testing.assert_array_equal(whole.features["m0"], split.features["m0"])
    assert neighbours(split, ("m1",)) > 0.9
    few = neighbours(whole, ("m1",), 40), neighbours(split, ("m1",), 40)
    assert few[0] > few[1] + 0.2
    kept = (whole.features["m1"] == split.features["m1"]).all(1)
    assert kept.mean() == pytest.approx(1 / 8, abs=0.03)


def test_missing_shares_of_the_modalities_are_exact() -> None:
    spec = SyntheticSpec(samples=1001, modalities=3, dim=4, missing=(0.9, 0.0, 0.75), seed=2)
    pool = make_synthetic(spec)
    np.testing.assert_allclose((~pool.present).mean(0), [0.9, 0, 0.75], atol=1 / 1001)
    assert pool.present.any(1).all()
    assert make_synthetic(replace(spec, missing=(0.5, 0.5, 1.0))).present.any(1).all()


def test_corruption_of_one_modality_leaves_the_other_alone() -> None:
    clean, noisy = make_synthetic(STRONG), make_synthetic(replace(STRONG, corruption=(0.0, 0.4)))
    np.testing.assert_array_equal(clean.features["m0"], noisy.features["m0"])
    changed = (clean.features["m1"] != noisy.features["m1"]).any(1)
    assert changed.sum() == round(0.4 * STRONG.samples)
    assert neighbours(noisy, ("m1",)) == pytest.approx(0.6 + 0.4 / 4, abs=0.08)


def test_names_of_pools_say_all_of_it() -> None:
    text = "modalities=2,strength=1:0.5,corruption=0:0.4,missing=0.1:0.5,fragments=1:4,unique=0.3,synergy=0.2"
    spec = parse_spec(text)
    assert spec == SyntheticSpec(
        modalities=2,
        strength=(1.0, 0.5),
        corruption=(0.0, 0.4),
        missing=(0.1, 0.5),
        fragments=(1, 4),
        unique=0.3,
        synergy=0.2,
    )
    assert parse_spec(format_spec(spec)) == spec


def test_a_family_draws_pools_that_can_hold_what_is_fixed() -> None:
    rng = np.random.default_rng(1)
    drawn = [draw_spec(rng, synergy=0.5) for _ in range(30)]
    assert {spec.modalities for spec in drawn} == {2, 3, 4} and {spec.synergy for spec in drawn} == {0.5}
    assert {draw_spec(rng, missing=(0.1, 0.5)).modalities for _ in range(5)} == {2}
    name = draw_from_family("synthetic-family:unique=1,modalities=2,fragments=1:4", rng)
    assert "fragments=1:4,unique=1.0" in name and open_dataset(name).num_classes >= 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("unique=0.6,synergy=0.5", r"unique is 0\.6 and synergy is 0\.5; their sum must be at most 1"),
        ("modalities=1,synergy=0.5", r"synergy is 0\.5 with 1 modality; raise modalities to 2"),
        ("synergy=2", r"synergy is 2\.0; it must be in \[0, 1\]"),
        ("fragments=0", r"fragments is 0; it must be in \[1, 100\]"),
        ("fragments=1:2.5:1", r"fragments is '1:2\.5:1'; it must be a whole number"),
        ("fragments=1:2", r"fragments has 2 values for 3 modalities; give one number, or one for each modality"),
        ("corruption=0:2:0", r"corruption of m1 is 2\.0; it must be in \[0, 1\]"),
        ("missing=1:0.6:0.5", r"missing adds up to 2\.1; with 3 modalities it may be 2 at most"),
        ("missing=0:nan:0", "missing of m1 is nan"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_dataset(f"synthetic:{text}")


def test_a_share_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigError, match=r"missing is 'much'; it must be a number, in \[0, 1\]"):
        SyntheticSpec(missing="much")  # type: ignore[arg-type]
