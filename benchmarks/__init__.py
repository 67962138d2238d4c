"""Measurements behind the published figures; each module is a command, none is a test."""
