"""A small HTTP/1.1 client for storages: kept connections, cancelled at once, bodies read into the caller's buffer.

Written because the cost of a call decides the rate of small files (docs/storage.md, "Speed"): half of what general clients take.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from scitq.errors import CancelledError, StorageError, TransientStorageError
from scitq.storage import trust
from scitq.storage.base import Cancel
from scitq.storage.dial import connect
from scitq.util import clock

_BUFFER: Final = 64 << 10
_MOST_HEADERS: Final = 256 << 10
_KEPT: Final = 32

Body = bytes | Callable[[], Iterable[bytes | memoryview]]
"""What is sent: bytes, or what makes the pieces anew for each try."""


class ConnectionBrokenError(TransientStorageError):
    """The connection failed or was cut; nothing is known of what the server did."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a server; a host that starts with a slash is a Unix socket."""

    is_tls: bool
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of `url`; raises StorageError when it is no http(s) address."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise StorageError(f"{url!r} is no web address: {error}") from error
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise StorageError(f"{url!r} is no http or https address")
        is_tls = parts.scheme == "https"
        return cls(is_tls, parts.hostname, port or (443 if is_tls else 80))

    @property
    def authority(self) -> str:
        """What the Host header says."""
        if self.host.startswith("/"):
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


class Connection:
    """One socket to one origin, and what has been read from it but not yet used."""

    def __init__(self, origin: Origin, context: ssl.SSLContext | None, cancel: Cancel) -> None:
        self.origin = origin
        self.idle_since_s = 0.0
        self._kept = b""
        proxy = None if origin.host.startswith("/") or proxy_bypass(origin.host) else getproxies().get("https" if origin.is_tls else "http")
        via = Origin.of(proxy if "://" in proxy else f"http://{proxy}") if proxy else origin
        self.is_through_proxy = bool(proxy) and not origin.is_tls
        self.socket = connect(via.host, via.port, cancel)
        try:
            with cancel.on_cancel(self.interrupt):
                if proxy and origin.is_tls:
                    self._open_tunnel()
                if context is not None and origin.is_tls:
                    # The handshake comes after the assignment, so that `interrupt` finds the socket that waits.
                    self.socket = context.wrap_socket(self.socket, server_hostname=origin.host, do_handshake_on_connect=False)
                    cancel.check()
                    self.socket.do_handshake()
        except BaseException:
            self.close()
            raise
        # Whole buffers for one system call, where the socket can; at the end of a body, `view` is as long as what is missing.
        self._flags = 0 if isinstance(self.socket, ssl.SSLSocket) else socket.MSG_WAITALL

    def _open_tunnel(self) -> None:
        target = f"{self.origin.host}:{self.origin.port}"
        self.socket.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("latin-1"))
        status = int(self.read_head().split(b" ", 2)[1])
        if status != 200:
            raise ConnectionBrokenError(f"the proxy answered {status} for {target}")

    def read_head(self) -> bytes:
        """All up to the empty line."""
        data = self._kept
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > _MOST_HEADERS:
                raise StorageError(f"{self.origin.authority} answered with endless headers")
            more = self.socket.recv(_BUFFER)
            if not more:
                raise ConnectionBrokenError(f"{self.origin.authority} closed the connection" + (" within its headers" if data else ""))
            data += more
        self._kept = data[end + 4 :]
        return data[:end]

    def read_line(self) -> bytes:
        """One line of a chunked body, without its end."""
        while (end := self._kept.find(b"\r\n")) < 0:
            more = self.socket.recv(_BUFFER)
            if not more or len(self._kept) > _MOST_HEADERS:
                raise ConnectionBrokenError(f"{self.origin.authority} cut the answer short")
            self._kept += more
        line, self._kept = self._kept[:end], self._kept[end + 2 :]
        return line

    def read_into(self, view: memoryview) -> int:
        """Some bytes into `view`; 0 when the server has closed."""
        if self._kept:
            count = min(len(view), len(self._kept))
            view[:count] = self._kept[:count]
            self._kept = self._kept[count:]
            return count
        return self.socket.recv_into(view, 0, self._flags)

    @property
    def is_quiet(self) -> bool:
        """Whether the server neither closed this idle connection nor sent anything unasked."""
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        return not self._kept and not poller.poll(0)

    def interrupt(self) -> None:
        """Make whatever blocks on the socket return; from any thread."""
        with suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        with suppress(OSError):
            self.socket.close()


class Reply:
    """Status and headers (names in lower case), and the body to be read once."""

    def __init__(self, connection: Connection, method: str, head: bytes) -> None:
        self._connection = connection
        self.status, self.headers = parse_head(head, connection.origin)
        self._is_chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length", "")
        if method == "HEAD" or self.status in {204, 304}:
            self.remaining: int | None = 0
            self._is_chunked = False
        elif self._is_chunked:
            self.remaining = 0
            self._next_chunk(is_first=True)
        else:
            self.remaining = int(length) if length.isdigit() else None
        self.is_kept_open = (
            head.startswith(b"HTTP/1.1") and self.headers.get("connection", "").lower() != "close" and self.remaining is not None
        )

    @property
    def length(self) -> int | None:
        """Bytes of the body as announced; None when the server does not tell."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdigit() else None

    @property
    def is_read(self) -> bool:
        """Whether nothing of the body is left."""
        return self.remaining == 0 and not self._is_chunked

    def _next_chunk(self, *, is_first: bool) -> None:
        if not is_first:
            self._connection.read_line()
        try:
            self.remaining = int(self._connection.read_line().partition(b";")[0], 16)
        except ValueError:
            raise ConnectionBrokenError(f"{self._connection.origin.authority} sent a broken chunk") from None
        if self.remaining == 0:
            while self._connection.read_line():
                pass
            self._is_chunked = False

    def read_into(self, view: memoryview) -> int:
        """Some bytes into `view`; 0 only at the end. ConnectionBrokenError when it is cut short."""
        if self.remaining == 0:
            return 0
        if self.remaining is not None and len(view) > self.remaining:
            view = view[: self.remaining]
        count = self._connection.read_into(view)
        if self.remaining is None:
            if count == 0:
                self.remaining = 0
            return count
        if count == 0:
            raise ConnectionBrokenError(f"{self._connection.origin.authority} cut the answer short, {self.remaining} bytes are missing")
        self.remaining -= count
        if self.remaining == 0 and self._is_chunked:
            self._next_chunk(is_first=False)
        return count

    def read(self, limit: int = 64 << 20) -> bytes:
        """The whole body; StorageError when it is larger than `limit`."""
        pieces, size, buffer = [], 0, memoryview(bytearray(_BUFFER))
        while count := self.read_into(buffer):
            size += count
            if size > limit:
                raise StorageError(f"{self._connection.origin.authority} answered with more than {limit} bytes")
            pieces.append(bytes(buffer[:count]))
        return b"".join(pieces)


def request_head(connection: Connection, method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """All of a request but its body, as it is sent on `connection`."""
    start = f"http://{connection.origin.authority}{target}" if connection.is_through_proxy else target
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {start} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def parse_head(head: bytes, origin: Origin) -> tuple[int, dict[str, str]]:
    """The status of an answer and its headers, with names in lower case."""
    first, *lines = head.decode("latin-1").split("\r\n")
    try:
        status = int(first.split(" ", 2)[1])
    except (IndexError, ValueError):
        raise StorageError(f"{origin.authority} does not speak HTTP") from None
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return status, headers


class Wire:
    """Connections to any number of origins, kept for reuse. Thread-safe."""

    def __init__(self, *, verify: bool = True, ca_file: str | None = None) -> None:
        self._verify, self._ca_file = verify, ca_file
        self._context: ssl.SSLContext | None = None
        self._idle: dict[Origin, list[Connection]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def exchange(
        self, origin: Origin, method: str, target: str, headers: Mapping[str, str], body: Body | None = None, *, cancel: Cancel
    ) -> Iterator[Reply]:
        """Send one request and give its reply; the connection is kept only if the body was read to its end.

        target: path and query, already encoded. Headers must have Host, and Content-Length when there is a body.
        Raises ConnectionBrokenError for all trouble on the way, StorageError for a certificate that is not trusted.
        """
        connection = self._idle_connection(origin)
        try:
            reply = None
            if connection is not None:
                with suppress(ConnectionBrokenError):
                    reply = self._send(connection, method, target, headers, body, cancel)
            if reply is None:
                if connection is not None:
                    connection.close()
                connection = self._open(origin, cancel)
                reply = self._send(connection, method, target, headers, body, cancel)
            assert connection is not None
            with cancel.on_cancel(connection.interrupt), _as_ours(origin, cancel):
                yield reply
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if reply.is_read and reply.is_kept_open:
            self.give_back(connection)
        else:
            connection.close()

    def lend(self, origin: Origin, cancel: Cancel) -> Connection:
        """A connection to `origin`, kept or new, for requests of the caller's own."""
        return self._idle_connection(origin) or self._open(origin, cancel)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection on which nothing is under way."""
        with self._lock:
            kept = self._idle.setdefault(connection.origin, [])
            if len(kept) < _KEPT:
                connection.idle_since_s = clock.monotonic_s()
                kept.append(connection)
                return
        connection.close()

    def _send(
        self, connection: Connection, method: str, target: str, headers: Mapping[str, str], body: Body | None, cancel: Cancel
    ) -> Reply:
        head = request_head(connection, method, target, headers)
        with cancel.on_cancel(connection.interrupt), _as_ours(connection.origin, cancel):
            try:
                _send_all(connection.socket, head, body)
            except (BrokenPipeError, ConnectionResetError):
                if connection.is_quiet:
                    raise
            while True:
                reply = Reply(connection, method, connection.read_head())
                if reply.status >= 200:
                    return reply

    def _idle_connection(self, origin: Origin) -> Connection | None:
        while True:
            with self._lock:
                kept = self._idle.get(origin)
                connection = kept.pop() if kept else None
            if connection is None or clock.monotonic_s() - connection.idle_since_s < 1 or connection.is_quiet:
                return connection
            connection.close()

    def _open(self, origin: Origin, cancel: Cancel) -> Connection:
        if origin.is_tls and self._context is None:
            self._context = _context(self._ca_file)
            if not self._verify:
                self._context.check_hostname = False
                self._context.verify_mode = ssl.CERT_NONE
        with _as_ours(origin, cancel):
            return Connection(origin, self._context, cancel)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connection in (connection for kept in idle.values() for connection in kept):
            connection.close()


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return trust.make_context(ca_file)
    except OSError as error:  # ssl.SSLError too
        where = ca_file or trust.find_bundle()
        raise StorageError(f"the certificates of {where} can't be read: {error.strerror or error}") from error


@contextmanager
def _as_ours(origin: Origin, cancel: Cancel) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise StorageError(f"the certificate of {origin.authority} is not trusted: {error.verify_message}") from error
    except (TimeoutError, BlockingIOError, ConnectionError, socket.gaierror, ssl.SSLError, ConnectionBrokenError) as error:
        if cancel.is_cancelled:
            raise CancelledError("the transfer was cancelled") from error
        if isinstance(error, ConnectionBrokenError):
            raise
        raise ConnectionBrokenError(f"{origin.authority}: {_reason(error)}") from error
    except OSError as error:
        if cancel.is_cancelled:
            raise CancelledError("the transfer was cancelled") from error
        if error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EBADF}:
            raise ConnectionBrokenError(f"{origin.authority}: {_reason(error)}") from error
        raise


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError | BlockingIOError | ssl.SSLWantReadError | ssl.SSLWantWriteError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return f"the name can't be resolved ({error.strerror})"
    return (error.strerror or str(error)).lower()


def _send_all(target: socket.socket, head: bytes, body: Body | None) -> None:
    if body is None:
        target.sendall(head)
    elif isinstance(body, bytes) and len(body) <= _BUFFER:
        target.sendall(head + body)
    else:
        target.sendall(head)
        for piece in [body] if isinstance(body, bytes) else body():
            target.sendall(piece)
