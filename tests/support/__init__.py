"""Shared by tests: values, pools, commands. Test files never import each other."""
