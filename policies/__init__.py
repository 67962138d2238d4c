"""Who chooses: the selection network, the ordered draw, and the strategies that it is compared with."""
