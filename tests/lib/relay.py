"""A cable between an agent and its server that a test can cut and mend."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Relay:
    """Passes TCP to 127.0.0.1:`port` while it is whole. `is_silent`: a cut cable swallows bytes rather than refusing."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._whole = threading.Event()
        self._whole.set()
        self._ended = False
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True, name="relay").start()

    def cut(self, *, is_silent: bool = False) -> None:
        """Break it: connections hang (silent) or end."""
        self._whole.clear()
        if not is_silent:
            for connection in list(self._open):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let bytes through again; what was swallowed is gone, so hung connections are ended."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._whole.set()

    def close(self) -> None:
        """End everything."""
        self._ended = True
        self._listener.close()
        self.mend()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            self._open |= {near, far}
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._whole.is_set():
                    target.sendall(data)
        for connection in (source, target):
            with suppress(OSError):
                connection.close()
            self._open.discard(connection)
