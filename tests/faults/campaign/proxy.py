"""A TCP proxy in front of a server on this machine, whose connection can be cut or made to hang."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close sends a reset


class Link:
    """`port` leads to `target`. `cut` resets every connection and refuses new ones; `hang` keeps all bytes back."""

    def __init__(self, target: int):
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._whole, self._flowing = threading.Event(), threading.Event()
        self._whole.set()
        self._flowing.set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()
        with self._lock:
            for connection in list(self._open):
                _reset(connection)
            self._open.clear()

    def hang(self) -> None:
        self._flowing.clear()

    def mend(self) -> None:
        self._whole.set()
        self._flowing.set()

    def close(self) -> None:
        self._listener.close()
        self.mend()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        self._flowing.wait()
        try:
            if not self._whole.is_set():
                raise ConnectionRefusedError
            far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            far.settimeout(None)
        except OSError:
            _reset(near)
            return
        with self._lock:
            self._open |= {near, far}
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
