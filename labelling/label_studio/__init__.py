"""Batches for people who label in Label Studio: as a file of tasks, or through a server."""
