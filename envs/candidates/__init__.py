"""Which samples are offered to a policy, what it learns about each, and the observation that carries it."""
