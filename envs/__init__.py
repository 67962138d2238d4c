"""The world: pool, task model, round, candidates, reward, environment. Works without Ray.

Importing this package registers `MultimodalAL-v0` with Gymnasium.
"""

import gymnasium

gymnasium.register(
    "MultimodalAL-v0",
    entry_point="envs.multimodal_al:MultimodalALEnv",
    vector_entry_point="envs.multimodal_al:VectorMultimodalALEnv",
)
