"""What goes to Label Studio as a picture or sound is one."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

import run
from envs.errors import ConfigError, DataError
from labelling.label_studio.tasks import LARGEST, file_in_task

PNG, WAV = b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WAVEfmt "


@pytest.mark.parametrize(
    ("kind", "name", "content", "media_type"),
    [
        ("picture", "a.png", PNG, "image/png"),
        ("picture", "a.txt", PNG, "image/png"),
        ("audio", "a.wav", WAV, "audio/wav"),
        ("audio", "a", WAV, "audio/wav"),
    ],
)
def test_the_content_decides(tmp_path: Path, kind: str, name: str, content: bytes, media_type: str) -> None:
    (tmp_path / name).write_bytes(content)
    expected = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    assert file_in_task(kind, str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("kind", "name", "content", "words", "error"),
    [
        ("picture", "id_rsa.png", b"-----BEGIN OPENSSH PRIVATE KEY-----", "is no picture", DataError),
        ("picture", "sound.png", WAV, "is no picture", DataError),
        ("picture", "empty.png", b"", "is no picture", DataError),
        ("audio", "shadow.wav", b"root:x:0:0:", "is no sound", DataError),
        ("audio", "picture.wav", PNG, "is no sound", DataError),
        ("picture", "large.png", PNG + bytes(LARGEST), "a task holds files of up to", ConfigError),
    ],
)
def test_anything_else_is_refused(
    tmp_path: Path, kind: str, name: str, content: bytes, words: str, error: type[Exception]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words):
        file_in_task(kind, str(tmp_path / name))


@pytest.mark.parametrize("link", ["journal.jsonl", "batches/batch-0001.csv", ".lock", "pool/features/image.npy"])
def test_a_project_with_a_link_out_of_it_is_refused(tmp_path: Path, link: str, capsys) -> None:
    other = tmp_path / "other"
    other.write_text("of somebody else")
    project = tmp_path / "project"
    (project / link).parent.mkdir(parents=True)
    (project / link).symlink_to(other)
    assert run.main(["status", str(project)]) == 2
    assert "is a link that leads out of" in capsys.readouterr().err
    assert other.read_text() == "of somebody else"
