"""A TCP proxy on loopback that spoils what goes through it, as asked."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class FlakyProxy:
    """Passes bytes to `upstream` (host, port).

    cut_down, cut_up: each number makes one connection end after so many bytes of one answer or request.
    flip_down, flip_up: so many pieces of more than 5,000 bytes get one bit changed.
    hidden: what of answers is made unknown by other letters, such as the name of a header.
    is_deaf: what is sent is taken and never answered.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.cut_down: list[int] = []
        self.cut_up: list[int] = []
        self.flip_down = 0
        self.flip_up = 0
        self.hidden = b""
        self.is_deaf = False
        self.deaf_connections = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @classmethod
    @contextmanager
    def running(cls, endpoint: str) -> Iterator[FlakyProxy]:
        host, _, port = endpoint.removeprefix("http://").partition(":")
        proxy = cls((host, int(port)))
        threading.Thread(target=proxy._accept, daemon=True).start()
        try:
            yield proxy
        finally:
            proxy._close(proxy._listener)
            for each in list(proxy._open):
                proxy._close(each)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self.upstream)
                self._open |= {client, server}
                asked = [0]
                threading.Thread(target=self._pump, args=(client, server, True, asked), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, False, asked), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_up: bool, turn: list[int]) -> None:
        passed, seen = 0, turn[0]
        with suppress(OSError):
            while data := source.recv(65536):
                if is_up:
                    turn[0] += 0 if passed and seen == turn[0] else 1
                    seen = turn[0]
                if self.is_deaf:
                    self.deaf_connections += is_up
                    continue
                if not is_up and turn[0] != seen:
                    passed, seen = 0, turn[0]
                if self.hidden and not is_up:
                    data = re.sub(re.escape(self.hidden), b"x" * len(self.hidden), data, flags=re.IGNORECASE)
                data = self._spoilt(data, is_up)
                limit = self._limit(passed + len(data), is_up)
                if limit is not None:
                    target.sendall(data[: max(0, limit - passed)])
                    break
                target.sendall(data)
                passed += len(data)
        for each in (source, target):
            self._close(each)

    def _limit(self, reached: int, is_up: bool) -> int | None:
        cuts = self.cut_up if is_up else self.cut_down
        with self._lock:
            if cuts and reached > cuts[0]:
                return cuts.pop(0)
        return None

    def _spoilt(self, data: bytes, is_up: bool) -> bytes:
        name = "flip_up" if is_up else "flip_down"
        with self._lock:
            if getattr(self, name) <= 0 or len(data) < 5000:
                return data
            setattr(self, name, getattr(self, name) - 1)
        changed = bytearray(data)
        changed[-1] ^= 1
        return bytes(changed)

    def _close(self, each: socket.socket) -> None:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
        self._open.discard(each)
