"""The environments on families of generated pools."""

from __future__ import annotations

import numpy as np

from envs.multimodal_al import VectorMultimodalALEnv
from envs.pools.partition import partition
from tests.support.environment import CONFIG, T, config, slots


def test_every_reset_draws_another_pool_of_a_family() -> None:
    family = "synthetic-family:samples=400,classes=3"
    mixed = config(datasets=(*CONFIG.datasets, family))
    curves = {"badge": np.full((2, mixed.starts, T + 1), 0.25, np.float32)}
    env = VectorMultimodalALEnv(mixed, 2, curves)
    drawn = {}
    for seed in (0, 1, 0):
        _, infos = env.reset(seed=seed, options={"source": 1})
        pool = env.sources[1].pool
        assert set(infos["labels"]) == {len(partition(pool).policy)} and infos["pool"].min() > 0
        if seed in drawn:  # the seed decides which pools follow
            assert drawn[seed] == (pool.fingerprint, int(infos["pool"][0]))
        drawn[seed] = pool.fingerprint, int(infos["pool"][0])
    assert drawn[0][0] != drawn[1][0] and drawn[0][1] != drawn[1][1]
    _, rewards, _, _, infos = env.step(slots(0, 2))  # nobody has played it before: no baselines
    assert not [name for name in infos if name.startswith("baseline/")] and np.isfinite(rewards).all()
    _, infos = env.reset(options={"source": 0})
    assert set(infos["pool"]) == {0}
    assert (env.step(slots(0, 2))[4]["baseline/badge"] == 0.25).all()
