"""A TCP proxy before a real server: counts HTTP requests, and can cut connections or slow them down."""

from __future__ import annotations

import re
import socket
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

_REQUEST = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1\.1\r\n")


class Proxy:
    """`with Proxy("http://127.0.0.1:8333") as proxy: proxy.url`

    cuts: so many answers that carry more than `cut_after` bytes are cut there. bytes_s: speed of answers, 0 is unbounded.
    """

    def __init__(self, url: str, *, cuts: int = 0, cut_after: int = 0, bytes_s: int = 0) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self.cuts, self.cut_after, self.bytes_s = cuts, cut_after, bytes_s
        self.requests: list[tuple[str, str]] = []
        self.made_cuts = 0
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listening.close()
        with self._lock:
            opened = list(self._open)
        for one in opened:
            _end(one)

    def count(self, method: str, part: str) -> int:
        """Requests so far of `method` whose path has `part`."""
        with self._lock:
            return sum(1 for found, path in self.requests if found == method and part in path)

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answers, args=(server, client), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        tail = b""
        try:
            while data := client.recv(1 << 16):
                with self._lock:
                    for match in _REQUEST.finditer(tail + data):
                        self.requests.append((match[1].decode(), match[2].decode()))
                last = (tail + data).rfind(b"\n")
                tail = (tail + data)[last + 1 :][-8192:]
                server.sendall(data)
        except OSError:
            pass
        _end(server)

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        done = 0
        try:
            while data := server.recv(1 << 16):
                done += len(data)
                if self.bytes_s:
                    time.sleep(len(data) / self.bytes_s)
                if self.cut_after and done > self.cut_after and self._may_cut():
                    break
                client.sendall(data)
        except OSError:
            pass
        _end(client)
        _end(server)

    def _may_cut(self) -> bool:
        with self._lock:
            if self.made_cuts >= self.cuts:
                return False
            self.made_cuts += 1
            return True


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
