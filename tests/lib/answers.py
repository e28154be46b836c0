"""A proxy before a real server that spoils single answers, as it is told: other statuses, halves, cuts, silence, changes behind the back."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.lib.webserver import serving


@dataclass
class Fault:
    """What happens to the next `times` requests of `method` whose path (with its query) has `part`, after `skipped` of them passed.

    kind: `status` (with `headers` and `body`; the request does not reach the server), `half` (half of the body, then the end),
    `reset` (half of the body, then RST), `drip` (the body in 50 pieces, `pause_s` apart), `lost` (the server does it, the answer is lost),
    `call` (`then` is called before the request goes on).
    """

    kind: str
    method: str = "GET"
    part: str = ""
    times: int = 1
    skipped: int = 0
    status: int = 503
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    pause_s: float = 0.02
    then: Callable[[], None] = lambda: None


class Answers(ThreadingHTTPServer):
    """`with Answers.before("http://127.0.0.1:8333") as proxy: proxy.url, proxy.faults`. seen: method and path of all requests."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream.removeprefix("http://")
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @classmethod
    @contextmanager
    def before(cls, upstream: str) -> Iterator[Answers]:
        with serving(cls(upstream)) as server:
            yield server

    def take(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.seen.append((method, path))
            for fault in self.faults:
                if fault.times and fault.method == method and fault.part in path:
                    if fault.skipped:
                        fault.skipped -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def handle_error(self, request, client_address):
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answers

    def _serve(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        fault = self.server.take(self.command, self.path)
        if fault is not None and fault.kind == "status":
            self._answer(fault.status, [*fault.headers], fault.body)
            return
        if fault is not None and fault.kind == "call":
            fault.then()
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=60)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # with the Host that was signed
            upstream.putheader(name, value)
        upstream.endheaders(sent or None)
        reply = upstream.getresponse()
        body = reply.read()
        upstream.close()
        headers = [
            (name, value) for name, value in reply.getheaders() if name.lower() not in {"content-length", "transfer-encoding", "connection"}
        ]
        if fault is not None and fault.kind == "lost":
            self._cut(is_reset=True)
            return
        length = reply.getheader("Content-Length") if self.command == "HEAD" else None
        self._answer(reply.status, headers, body, fault, length)

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, fault: Fault | None = None, length: str | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None and fault.kind in {"half", "reset"}:
            self.wfile.write(body[: len(body) // 2])
            self._cut(is_reset=fault.kind == "reset")
        elif fault is not None and fault.kind == "drip":
            step = max(1, len(body) // 50)
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                threading.Event().wait(fault.pause_s)
        else:
            self.wfile.write(body)

    def _cut(self, *, is_reset: bool) -> None:
        self.wfile.flush()
        if is_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def log_message(self, format, *args):
        pass
