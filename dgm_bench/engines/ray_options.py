"""Which Ray cluster, how it is used, and whether something like Ray is there."""

from __future__ import annotations

import socket
from pathlib import Path

from dgm_bench.config import Bytes
from dgm_bench.spec import Spec

#: Addresses of Ray's client.
CLIENT = "ray://"


class RayOptions(Spec):
    """``[ray]`` of ``dgm-bench.toml``.

    Attributes:
        address: Of the cluster: ``host:port``, ``ray://host:port``, or ``auto`` for the one that
            runs on this machine; None starts one on this machine.
        storage: Address of fsspec where work folders are kept, such as ``s3://bucket/runs``; None
            for the results folder of the command.
        scratch: Folder where nodes work; None for their folder of temporary files.
        ship: Whether nodes get this package from here, rather than have it installed.
        grows: Whether nodes come when tasks wait for them.
        gpu_memory: Bytes of a GPU; None to ask the nodes.
    """

    address: str | None = None
    storage: str | None = None
    scratch: Path | None = None
    ship: bool = False
    grows: bool = False
    gpu_memory: Bytes | None = None


def answers(address: str, seconds: float) -> str:
    """Return why no server of Ray's kind answers at ``host:port``; empty where one does.

    Ray's servers speak HTTP/2, and send their settings in answer to a client's (RFC 9113, 3.4).
    """
    host, _, port = address.rpartition(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), seconds) as connection:
            connection.settimeout(seconds)
            connection.sendall(preface)
            first = connection.recv(9)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return "" if first[3:4] == b"\x04" else "what answers there is no Ray"
