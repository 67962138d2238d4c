"""A Ray of our own listens to this machine alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray

LISTENS, LOOPBACK = "0A", ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")


def processes_below(root: int) -> list[int]:
    """A process and all that it started, themselves or through others."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def listening(process: int) -> set[str]:
    """Addresses, as /proc/net has them, at which a process listens."""
    try:
        links = [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:
        return set()
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENS and f"socket:[{fields[9]}]" in links:
                found.add(fields[1].partition(":")[0])
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
@pytest.mark.skipif("RAY_ADDRESS" in os.environ, reason="the cluster is not ours")
@pytest.mark.usefixtures("one_ray")
def test_our_ray_listens_to_this_machine_alone() -> None:
    ray.get(ray.remote(lambda: None).remote())  # a worker listens too
    addresses = set().union(*map(listening, processes_below(os.getpid())))
    assert addresses, "nothing was found to listen"
    assert addresses <= set(LOOPBACK)
