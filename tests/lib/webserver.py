"""A small web server for tests, with the faults that are asked of it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

S = TypeVar("S", bound=ThreadingHTTPServer)


@contextmanager
def serving(server: S) -> Iterator[S]:
    """`server`, answering in a thread until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class WebServer(ThreadingHTTPServer):
    """Serves `files` (path to content) on loopback.

    hold_after: answers stop after so many bytes until `go_on` is set. fail: as many answers are 503.
    cut_after: the next answers, as many as there are numbers, are cut after so many bytes.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.cut_after: list[int] = []
        self.fail = 0
        self.hold_after: int | None = None
        self.go_on = threading.Event()
        self.has_ranges = True
        self.tells_length = True
        self.requests: list[tuple[str, str, str]] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[WebServer]:
        with serving(cls()) as server:
            yield server

    def handle_error(self, request, client_address):
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range", "")
        server.requests.append((self.command, self.path, asked))
        if server.fail:
            server.fail -= 1
            self._plain(503, b"busy")
            return
        if self.path in server.redirects:
            self.send_response(302)
            self.send_header("Location", server.redirects[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = server.files.get(self.path)
        if content is None:
            self._plain(404, b"no")
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked) if server.has_ranges else None
        if match and int(match[1]) >= len(content):
            self._plain(416, b"")
            return
        start = int(match[1]) if match else 0
        end = min(int(match[2] or len(content) - 1), len(content) - 1) if match else len(content) - 1
        part = content[start : end + 1]
        self.send_response(206 if match else 200)
        self.send_header("Last-Modified", "Sun, 22 Nov 2026 20:00:00 GMT")
        if match:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        if server.tells_length:
            self.send_header("Content-Length", str(len(part)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._send(part)

    def _send(self, part: bytes) -> None:
        server = self.server
        is_cut = bool(server.cut_after) and len(part) > 1
        if is_cut:
            part = part[: server.cut_after.pop(0)]
        if server.hold_after is not None and len(part) > server.hold_after:
            self.wfile.write(part[: server.hold_after])
            self.wfile.flush()
            server.go_on.wait(60)
            part = part[server.hold_after :]
        if server.tells_length:
            self.wfile.write(part)
        else:
            for start in range(0, len(part), 70_000):
                piece = part[start : start + 70_000]
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            if not is_cut:
                self.wfile.write(b"0\r\n\r\n")
        if is_cut:
            self.close_connection = True

    def _plain(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass
