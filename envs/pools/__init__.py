"""The data at rest: a pool, its checks and files, and which of its rows may serve for what."""

from envs.pools.pool import Pool, load_pool, save_pool

__all__ = ["Pool", "load_pool", "save_pool"]
