"""A real Ray cluster on this machine: a head without CPUs, and nodes with folders of their own.

``python tests/engines/ray_nodes.py COMMAND...`` starts one of three nodes, runs a command in it
with its address in ``RAY_ADDRESS``, and stops it.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

_SMALL = {"object_store_memory": 100 << 20}
_MARK = "NODE_OF_TEST"
#: Ray's own clusters for tests ask for no token; ``ray start`` makes others.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


class RayNodes:
    """The processes of a cluster; ``nodes`` are those of its nodes, by name."""

    def __init__(self, folder):
        from ray.cluster_utils import Cluster

        self.folder, self.nodes = folder, {}
        head = {"num_cpus": 0, "include_dashboard": False, **_SMALL}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self.cluster.address

    def add(self, name, cpus=1, env=None):
        """Start a node, with a folder of its own for all that its tasks write."""
        own = self.folder / name
        own.mkdir()
        variables = {"TMPDIR": str(own), _MARK: str(own), **(env or {})}
        self.nodes[name] = self.cluster.add_node(num_cpus=cpus, env_vars=variables, **_SMALL)

    def workers(self, name):
        """Return the processes of a node, by what is in their environment."""
        mark = f"{_MARK}={self.folder / name}\0".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes() + b"\0":
                    yield int(entry.name)

    def kill(self, name):
        """Kill all processes of a node at once, as a machine that goes off."""
        for process in list(self.workers(name)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)

    def kill_head(self):
        """Kill what all nodes need."""
        self.cluster.head_node.kill_gcs_server()
        self.cluster.head_node.kill_raylet()


@contextmanager
def ray_nodes(count=3, cpus=1):
    """Give a cluster of so many nodes, and stop it at the end."""
    os.environ.update(QUIET)
    with tempfile.TemporaryDirectory(prefix="ray-nodes-") as folder:
        started = RayNodes(Path(folder))
        try:
            for index in range(count):
                started.add(f"node{index}", cpus)
            started.cluster.wait_for_nodes()
            yield started
        finally:
            started.cluster.shutdown()
            time.sleep(0.5)


if __name__ == "__main__":
    with ray_nodes() as ready:
        environment = {**os.environ, "RAY_ADDRESS": ready.address}
        sys.exit(subprocess.run(sys.argv[1:] or ["bash"], env=environment).returncode)
