"""What this user wrote is told from what a stranger did; links do not lead out of a folder."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import pytest

from envs import origin
from envs.errors import DataError, TrustError
from envs.origin import MARK, is_signed, is_signed_folder, refuse_links_out, sign, sign_folder
from envs.registry import TRUSTED, Registry, names_of


def test_only_what_was_signed_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    signature = sign("a")
    assert is_signed("a", signature)
    for text, wrong in (("b", signature), ("a", ""), ("a", None), ("a", 3), ("a", "é"), ("a", signature[:-1])):
        assert not is_signed(text, wrong)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of_another"))
    assert not is_signed("a", signature)
    key = tmp_path / "of_another" / "rl-mba" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [path.name for path in key.parent.iterdir()] == ["key"]


@pytest.mark.parametrize("content", ["file in the way", "short key"])
def test_without_a_key_nothing_is_signed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> None:
    folder = tmp_path / "rl-mba"
    if content == "short key":
        folder.mkdir()
        (folder / "key").write_text("short")
    else:
        folder.write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert sign("a") == "" and not is_signed("a", "")
    sign_folder(tmp_path)
    assert not (tmp_path / MARK).exists() and not is_signed_folder(tmp_path)


def test_a_folder_is_signed_for_its_place(tmp_path: Path) -> None:
    here, copy = tmp_path / "here", tmp_path / "copy"
    here.mkdir()
    assert not is_signed_folder(here)
    sign_folder(here)
    assert is_signed_folder(here)
    (tmp_path / "link").symlink_to(here)
    assert is_signed_folder(tmp_path / "link")
    shutil.copytree(here, copy)
    assert not is_signed_folder(copy)
    sign_folder(copy, "s3://bucket/copy")
    assert is_signed_folder(copy, "s3://bucket/copy") and not is_signed_folder(copy)


def test_a_signature_is_not_written_through_a_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("as it was")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / MARK).symlink_to(other)
    sign_folder(folder)
    assert other.read_text() == "as it was" and is_signed_folder(folder)


@pytest.mark.parametrize(
    ("link", "target", "leads_out"),
    [
        ("a", "../secret", True),
        ("a", "/etc/passwd", True),
        ("sub/a", "../../secret", True),
        ("sub/a", "../../missing", True),
        ("sub/more", "../..", True),
        ("a", "sub/file", False),
        ("sub/more", "..", False),
        ("a", "missing", False),
    ],
)
def test_links_out_of_a_folder_are_refused(tmp_path: Path, link: str, target: str, leads_out: bool) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_text("")
    (tmp_path / "secret").write_text("secret")
    os.symlink(target, folder / link)
    (tmp_path / "by_link").symlink_to(folder)
    for place in (folder, tmp_path / "by_link"):
        if leads_out:
            with pytest.raises(TrustError, match=f"{link} is a link that leads out of"):
                refuse_links_out(place)
        else:
            refuse_links_out(place)


@pytest.mark.parametrize("allowed", ["", "trusted", "asked before", "variable"])
def test_names_in_a_file_are_not_imported_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    module = f"planted_{allowed.replace(' ', '_')}"
    (tmp_path / f"{module}.py").write_text("import os\nos.environ['PLANTED'] = __name__\nthing = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PLANTED", "")
    monkeypatch.setenv(TRUSTED, f"other,{module}" if allowed == "variable" else "other")
    registry: Registry[object] = Registry("thing", "int", lambda found: isinstance(found, int), {}, DataError)
    if allowed == "asked before":
        registry.find(f"{module}:thing")
    with names_of(tmp_path / "settings.yaml", trusted=allowed == "trusted"):
        if allowed:
            assert registry.find(f"{module}:thing") == 1
        else:
            with pytest.raises(TrustError, match=rf"settings.yaml names the thing .*{TRUSTED}={module}"):
                registry.find(f"{module}:thing")
    assert os.environ["PLANTED"] == (module if allowed else "")
    sys.modules.pop(module, None)


def test_the_key_is_one_for_all_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    first = sign("a")
    origin._key.cache_clear()
    assert sign("a") == first
