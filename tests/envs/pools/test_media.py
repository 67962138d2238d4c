"""Paths of pictures stay in their folder, by links too; what a file is, its content says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from envs.errors import DataError
from envs.pools.media import absolute_paths, picture_type, sound_type


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pool with links of every kind, beside a folder with a secret."""
    pool = tmp_path / "pool"
    (pool / "pictures" / "deep").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.png").write_text("secret")
    (pool / "pictures" / "a.png").write_text("a")
    for link, target in {
        "pictures/out.png": "../../private/secret.png",
        "pictures/far.png": str(tmp_path / "private" / "secret.png"),
        "pictures/chain.png": "out.png",
        "pictures/gone.png": "../../private/missing.png",
        "outside": "../private",
        "pictures/deep/outside": "../../../private",
        "pictures/in.png": "a.png",
        "inside": "pictures",
        "pictures/nowhere.png": "missing.png",
        "pictures/loop.png": "loop.png",
        "sibling.png": "../pool-b/a.png",
    }.items():
        os.symlink(target, pool / link)
    return pool


@pytest.mark.parametrize(
    "path",
    [
        "pictures/out.png",
        "pictures/far.png",
        "pictures/chain.png",
        "pictures/gone.png",
        "outside/secret.png",
        "outside/missing.png",
        "pictures/deep/outside/secret.png",
        "inside/out.png",
        "outside",
        "sibling.png",
    ],
)
def test_a_link_out_of_the_pool_is_refused(folder: Path, path: str) -> None:
    with pytest.raises(DataError, match=r"^Row 1: picture .* leads out of .* by a link"):
        absolute_paths("picture", np.array(["pictures/a.png", path]), folder)


@pytest.mark.parametrize(
    "path",
    [
        "pictures/a.png",
        "pictures/in.png",
        "inside/a.png",
        "pictures/nowhere.png",
        "pictures/loop.png",
        "none/a.png",
        "",
    ],
)
def test_what_stays_inside_is_taken_as_it_is(folder: Path, path: str) -> None:
    found = absolute_paths("picture", np.array([path]), folder)
    assert found.tolist() == [str(folder / path) if path else ""]


def test_the_pool_may_be_a_link_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert absolute_paths("picture", np.array(["pictures/a.png"]), tmp_path / "link")[0].endswith("link/pictures/a.png")
    with pytest.raises(DataError, match="by a link"):
        absolute_paths("picture", np.array(["pictures/out.png"]), tmp_path / "link")


@pytest.mark.parametrize(
    ("content", "picture", "sound"),
    [
        (b"\x89PNG\r\n\x1a\n rest", "image/png", None),
        (b"\xff\xd8\xff\xe0 rest", "image/jpeg", None),
        (b"GIF89a rest", "image/gif", None),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp", None),
        (b"\0\0\0\x1cftypavif", "image/avif", "video/mp4"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "image/svg+xml", None),
        (b"\xef\xbb\xbf\n<svg></svg>", "image/svg+xml", None),
        (b"RIFF\0\0\0\0WAVEfmt ", None, "audio/wav"),
        (b"ID3\4 rest", None, "audio/mpeg"),
        (b"\xff\xfb\x90 rest", None, "audio/mpeg"),
        (b"OggS rest", None, "audio/ogg"),
        (b"fLaC rest", None, "audio/flac"),
        (b"\0\0\0\x20ftypM4A ", None, "audio/mp4"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----", None, None),
        (b"root:x:0:0:root:/root:/bin/bash", None, None),
        (b'<?xml version="1.0"?><settings password="x"/>', None, None),
        (b"%PDF-1.7", None, None),
        (b"PK\3\4", None, None),
        (b"", None, None),
    ],
)
def test_what_a_file_is_its_content_says(content: bytes, picture: str | None, sound: str | None) -> None:
    assert picture_type(content) == picture
    assert sound_type(content) == sound
