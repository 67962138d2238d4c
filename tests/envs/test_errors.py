"""Words of errors."""

from __future__ import annotations

from envs.errors import nearest


def test_nearest() -> None:
    assert nearest("EMOJY", ["emoji", "watch"]) == " Did you mean 'emoji'?"
    assert nearest("zzz", ["emoji", "watch"]) == ""
