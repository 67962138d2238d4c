"""What the variants of a policy leave out."""

from __future__ import annotations

import pytest

from benchmarks.variants import GROUPS, VARIANTS, settings
from envs.candidates import DEFAULT_FEATURES, FEATURES
from learners.settings import TrainConfig, build, parse_overrides
from policies.batch_features import BATCH_FEATURES, DEFAULT_BATCH_FEATURES

RECORDS = {**FEATURES, **BATCH_FEATURES}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_a_setting_of_training(variant: str) -> None:
    policy = build(TrainConfig, {"datasets": ["emoji"]} | parse_overrides(settings(variant))).policy
    looked_at = {*policy.features, *policy.batch_features}
    group = variant.removeprefix("no-")
    if group in GROUPS:
        left_out = {*DEFAULT_FEATURES, *DEFAULT_BATCH_FEATURES} - looked_at
        assert left_out == set(GROUPS[group]) != set()
        assert all(group in RECORDS[name].groups for name in left_out)
        assert not any(group in RECORDS[name].groups for name in looked_at)
    elif variant == "neighbours":
        assert looked_at > {*DEFAULT_FEATURES, *DEFAULT_BATCH_FEATURES}


def test_the_groups_that_docs_report() -> None:
    assert {"uncertainty", "density", "labelled_distance", "modalities", "classes", "batch"} == set(GROUPS)
    assert {"mean_uncertainty", "weighted_uncertainty"} < set(GROUPS["uncertainty"]) & set(GROUPS["modalities"])
    assert set(GROUPS["classes"]) == {"rarity", "class_share"}
