"""Ray is joined or started, or a sentence says why not: real sockets and folders, and starts that fail."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envs.errors import ConfigError
from runtime import ray_start
from runtime.cluster import local_ray
from runtime.ray_start import own_ray, refusal_of, unusable
from tests.support.paths import ROOT

SETTINGS_FRAME = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """An address at which somebody answers so, or accepts a connection and keeps silent."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        over = threading.Event()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                if answer is None:
                    over.wait(30)
                    return
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def free_address() -> str:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """No Ray is there, and `ray.init` only notes what it was given."""
    calls: list[dict] = []
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.init", lambda **options: calls.append(options | {"env": dict(os.environ)}))
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    return calls


@pytest.mark.parametrize(
    "answer, words",
    [
        (SETTINGS_FRAME, ""),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is no Ray"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "what answers there is no Ray"),
        (b"", "what answers there is no Ray"),
        (SETTINGS_FRAME[:5], "what answers there is no Ray"),
        (None, "no Ray answers there"),
    ],
)
def test_who_answers_at_an_address(answer: bytes | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_start, "ANSWER_S", 0.3)
    with server(answer) as address:
        for given in (address, f"ray://{address}"):
            if given == address or answer is None:  # the server answers once
                said = refusal_of(given)
                assert words in said and bool(said) == bool(words)


@pytest.mark.parametrize(
    "address, words",
    [
        ("nobody.invalid:6379", "no machine is called nobody.invalid"),
        ("10.0.0.1", "write HOST:PORT"),
        (":6379", "write HOST:PORT"),
        ("localhost:", "write HOST:PORT"),
        ("localhost:http", "write HOST:PORT"),
        ("localhost:0", "write HOST:PORT"),
        ("localhost:70000", "write HOST:PORT"),
        ("loc..alhost:6379", "a"),
    ],
)
def test_what_is_no_address(address: str, words: str, no_ray: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match="RAY_ADDRESS") as error, local_ray(1):
        raise AssertionError
    assert words in str(error.value) and "unset it" in str(error.value) and not no_ray


def test_a_dead_address_is_told_within_seconds(no_ray: list, monkeypatch: pytest.MonkeyPatch) -> None:
    address, began = free_address(), time.monotonic()
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=f"RAY_ADDRESS names {address}, and no Ray answers there"), local_ray(1):
        raise AssertionError
    assert time.monotonic() - began < 10 and not no_ray


def test_auto_where_nobody_is(no_ray: list, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", frozenset)
    with pytest.raises(ConfigError, match="no Ray runs on this machine"), local_ray(1):
        raise AssertionError
    last = tmp_path / "ray" / "ray_current_cluster"  # of a Ray that has crashed since
    last.parent.mkdir()
    last.write_text(free_address())
    with pytest.raises(ConfigError, match="is auto, and Ray was last seen at"), local_ray(1):
        raise AssertionError
    assert not no_ray


def test_a_ray_that_refuses(no_ray: list, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("Version mismatch.\nRay: 1 and 2")

    monkeypatch.setattr("ray.init", refuse)
    with server(SETTINGS_FRAME) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ConfigError, match=r"cannot be joined \(Version mismatch\)\."), local_ray(1):
            raise AssertionError


@pytest.mark.parametrize("address", ["", " ", "local"])
def test_without_an_address_ray_is_our_own(address: str, no_ray: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with local_ray(200):
        (options,) = no_ray
    assert options["address"] == "local" and options["num_cpus"] >= 200


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_start_that_fails_is_tried_again(failures: int, no_ray: list, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    left = [RuntimeError("The current node timed out during startup. Long.\nMore.")] * failures

    def start(**options: object) -> None:
        if left:
            raise left.pop()
        no_ray.append(options)

    monkeypatch.setattr("ray.init", start)
    if failures < ray_start.ATTEMPTS:
        with local_ray(1, said.append):
            assert len(no_ray) == 1
    else:
        with pytest.raises(ConfigError, match="Ray did not start in 3 attempts") as error, local_ray(1, said.append):
            raise AssertionError
        assert "\n" not in str(error.value)
    assert [text.rpartition(", ")[2] for text in said] == [f"attempt {n} of 3" for n in (2, 3)[:failures]]


def test_what_an_interrupted_start_ran_is_ended(monkeypatch: pytest.MonkeyPatch, no_ray: list) -> None:
    class Half:
        def __init__(self) -> None:
            raise KeyboardInterrupt

        def kill_all_processes(self, **_: object) -> None:
            no_ray.append({"killed": True})

    monkeypatch.setattr(ray_start, "Node", Half)
    monkeypatch.setattr("ray.init", lambda **_: Half())
    with pytest.raises(KeyboardInterrupt), local_ray(1):
        raise AssertionError
    assert no_ray == [{"killed": True}]


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
@pytest.mark.parametrize("folder", ["/tmp/" + "x" * 90, "/tmp/" + "ä" * 30, "/proc/nope", "not/absolute", ""])
def test_a_folder_that_ray_cannot_use(
    variable: str, folder: str, no_ray: list, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv(variable, folder)
    with local_ray(1):
        own = Path(no_ray[0]["_temp_dir"])
        assert own.is_dir() and not unusable(str(own))
    assert not own.exists()
    assert f"Ray keeps its files in {own}" in capfd.readouterr().err


def test_the_longest_folder_holds_rays_sockets() -> None:
    """By a real socket: one byte more is too long for the system, too."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        longest = short + "/"
        while not unusable(longest + "x"):
            longest += "x"
        path = os.path.join(longest, ray_start._SOCKET)
        os.makedirs(os.path.dirname(path))
        with socket.socket(socket.AF_UNIX) as fits:
            fits.bind(path)
        with socket.socket(socket.AF_UNIX) as too_long, pytest.raises(OSError, match="too long"):
            too_long.bind(path + "x")


def test_a_home_that_cannot_be_written(no_ray: list, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc/nohome")
    with local_ray(1):
        assert len(no_ray[0]["env"]["RAY_AUTH_TOKEN"]) == 64
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_limits_of_the_user_stay(no_ray: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "7")
    with own_ray({}, print):
        env = no_ray[0]["env"]
    assert env["RAY_raylet_start_wait_time_s"] == "7" and env["RAY_gcs_server_port_wait_time_s"] == "120"


def test_ctrl_c_ends_a_start_that_waits_outside_of_python(tmp_path: Path) -> None:
    code = """
import ctypes, os, signal, threading
from runtime.signals import ends_at_interrupt
libc = ctypes.CDLL(None)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore Ctrl-C
signal.siginterrupt(signal.SIGINT, False)
end, _ = os.pipe()
with ends_at_interrupt(patience=0.5):
    # Another thread says so when this one has been in the system for a while, where Python does not see a signal.
    threading.Timer(1.0, lambda: print("waiting", flush=True)).start()
    libc.read(end, ctypes.create_string_buffer(1), 1)  # for ever, whatever signal comes
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
