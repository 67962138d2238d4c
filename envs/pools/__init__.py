"""The data at rest: a pool, its checks and files, and which of its rows may serve for what."""

from envs.pools.files import load_pool, save_pool
from envs.pools.pool import Pool

__all__ = ["Pool", "load_pool", "save_pool"]
