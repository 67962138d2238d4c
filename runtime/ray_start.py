"""How Ray is joined or started: what it needs is checked first, and what goes wrong is said in a sentence.

Ray itself waits for a quarter of an hour for an address at which nobody is, and answers a temporary folder with too
long a name, or a machine that is too busy to start it in 30 seconds, with a traceback.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private import ray_constants, services
from ray._private.node import Node

from envs.errors import ConfigError
from runtime.signals import ends_at_interrupt

ATTEMPTS = 3  # at a start of our own
ANSWER_S = 5.0  # within which an address must answer
START_S = 120  # that the parts of a Ray that starts have to find each other; its own limits are 15 to 60 seconds
_LIMITS = {  # read by the processes that Ray starts
    "RAY_raylet_start_wait_time_s": str(START_S),
    "RAY_gcs_server_port_wait_time_s": str(START_S),
    "RAY_worker_register_timeout_seconds": str(2 * START_S),
    "RAY_agent_register_timeout_ms": str(1000 * START_S),
}
_SHORT = ("/tmp", "/var/tmp", "/dev/shm")  # folders with short names
_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # the longest path of a socket
_SOCKET = "session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store.0"  # in Ray's folder; the longest there
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # of HTTP/2, which Ray speaks
_SETTINGS = 4  # kind of the frame that answers it


@contextmanager
def joined_ray(address: str, options: Mapping[str, Any]) -> Iterator[None]:
    """The Ray that RAY_ADDRESS names, left at the end of the block.

    Raises:
        ConfigError: where the address is none, nobody or something else answers there, or Ray refuses.
    """
    with ends_at_interrupt():
        _join(address, options)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str, options: Mapping[str, Any]) -> None:
    found = _found(address) if address == "auto" else address
    named = "RAY_ADDRESS names" if found == address else "RAY_ADDRESS is auto, and Ray was last seen at"
    remedy = "Start Ray there, correct RAY_ADDRESS, or unset it for a Ray of this command's own."
    problem = refusal_of(found)
    if problem:
        raise ConfigError(f"{named} {found}, {problem}. {remedy}")
    try:
        ray.init(address=address, **options)  # not `found`: for auto alone Ray looks for a token
    except Exception as error:  # whatever Ray raises
        ray.shutdown()
        raise ConfigError(f"{named} {found}, and it cannot be joined ({_first_line(error)}). {remedy}") from error


def _found(address: str) -> str:
    try:
        return services.canonicalize_bootstrap_address(address) or address
    except Exception:  # whatever Ray raises
        raise ConfigError(
            "RAY_ADDRESS is auto, and no Ray runs on this machine. Start one (ray start --head), or unset RAY_ADDRESS "
            "for a Ray of this command's own."
        ) from None


def refusal_of(address: str) -> str:
    """Why no Ray can be joined at an address, as the end of a sentence; empty where one may."""
    scheme, marked, place = address.rpartition("://")
    if marked and scheme != "ray":
        return ""  # of a client of another maker, which knows where that is
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        return "which is no address; write HOST:PORT, as in 10.0.0.1:6379"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_S) as connection:
            return "" if _speaks(connection) else "and what answers there is no Ray"
    except socket.gaierror:
        return f"and no machine is called {host}"
    except (OSError, UnicodeError):
        return "and no Ray answers there"


def _speaks(connection: socket.socket) -> bool:
    """Whether the other side could be Ray; a connection alone may also be a proxy's, or another service's."""
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return True
    connection.settimeout(ANSWER_S)
    connection.sendall(_HELLO)
    answer = b""
    while len(answer) < 9 and (more := connection.recv(9 - len(answer))):
        answer += more
    return len(answer) == 9 and answer[3] == _SETTINGS


@contextmanager
def own_ray(options: Mapping[str, Any], say: Callable[[str], Any]) -> Iterator[None]:
    """A Ray of our own, stopped at the end of the block.

    Args:
        options: of `ray.init`.
        say: shows a line.

    Raises:
        ConfigError: where it does not start after a few attempts.
    """
    limits = {name: os.environ.get(name, value) for name, value in _LIMITS.items()}
    with _own_folder() as own, _environment(limits | _own_token()):
        with ends_at_interrupt():
            _start(dict(options) | own, say)
        try:
            yield
        finally:
            ray.shutdown()


def _start(options: Mapping[str, Any], say: Callable[[str], Any]) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _patience(), _on_this_machine_alone():
                ray.init(address="local", **options)
            return
        except BaseException as error:
            _clear_away(error)
            if not isinstance(error, Exception):
                raise
            if attempt == ATTEMPTS:
                raise ConfigError(
                    f"Ray did not start in {ATTEMPTS} attempts ({_first_line(error)}). The machine may be too busy or "
                    "short of memory; try again when less runs on it."
                ) from error
            say(f"Ray did not start ({_first_line(error)}); trying again, attempt {attempt + 1} of {ATTEMPTS}")


@contextmanager
def _own_folder() -> Iterator[dict[str, str]]:
    """The argument of `ray.init` for a temporary folder, where Ray's own choice cannot be used."""
    usual = get_default_ray_temp_dir()
    problem = unusable(usual)
    if not problem:
        yield {}
        return
    folder = None
    for place in _SHORT:
        with suppress(OSError):
            folder = tempfile.mkdtemp(prefix="rl-mba-", dir=place)
            break
    if folder is None:
        raise ConfigError(f"{usual} {problem}; set RAY_TMPDIR to a folder with a short name that can be written.")
    print(f"note: Ray keeps its files in {folder}, since {usual} {problem}", file=sys.stderr, flush=True)
    try:
        yield {"_temp_dir": folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """These variables for the time of the block."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def unusable(folder: str) -> str:
    """Why Ray cannot keep its files in a folder, as the end of a sentence; empty where it can."""
    if not os.path.isabs(folder):
        return "is no absolute path"
    if len(os.fsencode(os.path.join(folder, _SOCKET))) > _SOCKET_BYTES:
        return f"is too long for its sockets, whose paths hold at most {_SOCKET_BYTES} bytes"
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"cannot be written ({error.strerror})"


def _own_token() -> dict[str, str]:
    """A token for Ray's processes, where it cannot keep one in the home folder."""
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        return {}
    try:
        kept = Path.home() / ".ray" / "auth_token"
        if kept.is_file() and os.access(kept, os.R_OK):
            return {}
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=kept.parent):
            return {}
    except (OSError, RuntimeError):  # RuntimeError: nobody knows of a home
        return {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def _patience() -> Iterator[None]:
    """Let Ray ask for its own node for longer than the 30 seconds that it allows itself."""
    ask, end = services.get_node, time.monotonic() + START_S

    def ask_again(*args: Any) -> Any:
        while True:
            try:
                return ask(*args)
            except RuntimeError:  # it is not there yet
                if time.monotonic() > end:
                    raise
            time.sleep(0.2)

    services.get_node = ask_again
    try:
        yield
    finally:
        services.get_node = ask


@contextmanager
def _on_this_machine_alone() -> Iterator[None]:
    """Let a Ray that starts in the block listen on 127.0.0.1 only, as it does on macOS and Windows.

    On Linux it would listen on every address, and it makes the network's of 127.0.0.1 where `ray.init` is given that.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _clear_away(error: BaseException) -> None:
    """End the processes of a start that failed: Ray itself does so only when this process ends."""
    ray.shutdown()
    at: TracebackType | None = error.__traceback__
    while at is not None:
        node = at.tb_frame.f_locals.get("self")
        if isinstance(node, Node):
            with suppress(Exception):
                node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        at = at.tb_next


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
