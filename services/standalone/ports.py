"""Ports of 127.0.0.1: where the services are, and which are free."""

from __future__ import annotations

import socket

from services.standalone.child import StartError

PORTS = {"api": 8000, "inference": 8001, "ui": 7860}  # unless another program is there


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """`preferred` when it is free on loopback, else a free port chosen by the kernel."""
    if preferred is not None and is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def chosen_port(port: int | None, name: str) -> int:
    """`port`, or a free one when it is None. Raises StartError when `port` is taken."""
    if port is not None and not is_free(port):
        raise StartError(
            f"port {port} of 127.0.0.1 is taken, so {name} cannot listen there; choose another, or none to get a free one"
        )
    return port or free_port()
