"""Two nodes of a Ray cluster on this machine, and what tests do to them."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

# Enough for the answers of actors; pictures do not pass through it.
STORE_BYTES = 80_000_000


class Nodes:
    """A cluster whose head has no cores, so that actors run on the nodes that a test may kill."""

    def __init__(self) -> None:
        self._own = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, **self._own},
        )
        self._nodes: list[Any] = []

    @property
    def address(self) -> str:
        """Return the cluster's address, as --ray takes it."""
        return str(self._cluster.address)

    def have(self, count: int) -> None:
        """Start or kill raylets until there are so many, beside the head's."""
        while len(self._nodes) < count:
            self._nodes.append(self._cluster.add_node(num_cpus=1, **self._own))
        while len(self._nodes) > count:
            self.kill()

    def kill(self) -> None:
        """Kill a raylet and the workers of its node, which would go on until they miss it."""
        node = self._nodes.pop()
        (raylet,) = node.all_processes["raylet"]
        workers = children(raylet.process.pid)
        self._cluster.remove_node(node, allow_graceful=False)
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    def stop(self) -> None:
        """Stop everything."""
        self._cluster.shutdown()


def children(process: int) -> list[int]:
    """Return the ids of a process's children, by Linux's own list."""
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


@contextmanager
def nodes() -> Iterator[Nodes]:
    """Start a cluster, and stop it in the end; meanwhile, `auto` means it."""
    # Its sockets' paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="vs-ray-", dir="/tmp"))
    (folder / "ray").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        # A token that the user's own clusters share is not known to this one.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        try:
            started = Nodes()
            try:
                yield started
            finally:
                started.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
