"""A look at a port before ZeroMQ gets it: whose connect never fails by itself and never says why (contract AUTH-10, AUTH-15)."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading

from scitq.client.locate import Address
from scitq.errors import UnavailableError
from scitq.util import clock

GREETING_LENGTH = 10
_REASONS = {
    errno.ECONNREFUSED: "connection refused: no server listens there",
    errno.ETIMEDOUT: "timed out: filtered by a firewall, or the machine is off",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ENETUNREACH: "the network is unreachable",
    errno.ECONNRESET: "the connection was reset",
}


_HINT = "Is it running? When it is elsewhere: export SCITQ_SERVER=host:port, or give --server."


def unavailable(address: Address | str, reason: str, tried: list[str] | None = None, hint: str = _HINT) -> UnavailableError:
    """The error of contract AUTH-10: what was tried, why it failed, and what to set."""
    also = f" (tried {', '.join(tried)})" if tried else ""
    return UnavailableError(f"Unavailable: can't reach the scitq server at {address}{also}: {reason}. {hint}")


def resolve(address: Address, timeout_s: float) -> list[tuple[int, str]]:
    """The (family, numeric address) pairs of the host; `localhost` is both loopback addresses whatever the resolver says."""
    if address.host.lower() == "localhost":
        return [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address.host)
        except OSError:
            continue
        return [(family, address.host)]
    found: list[tuple[int, str]] = []
    problem: list[str] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            problem.append(str(error.args[-1]) if error.args else str(error))
            return
        found.extend(dict.fromkeys((int(answer[0]), str(answer[4][0])) for answer in answers))

    thread = threading.Thread(target=look_up, name="resolver", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise unavailable(address, f"name not found: the resolver did not answer for {address.host!r} within {timeout_s:g} s")
    if not found:
        raise unavailable(address, f"name not found: {address.host!r} ({problem[0] if problem else 'no address'})")
    return found


class _Try:
    """One address being tried."""

    def __init__(self, family: int, host: str, port: int) -> None:
        self.shown = str(Address(host, port))
        self.host = host
        self.reason = ""
        self.is_connected = False
        self.greeting = b""
        self.socket: socket.socket | None = None
        try:
            self.socket = socket.socket(family, socket.SOCK_STREAM)
            self.socket.setblocking(False)
            status = self.socket.connect_ex((host, port))
        except OSError as error:
            status = error.errno or errno.EIO
        if status not in {0, errno.EINPROGRESS}:
            self.fail(status)

    def fail(self, status: int) -> None:
        """Note why this address is no good."""
        self.reason = _REASONS.get(status, os.strerror(status))
        self.close()

    def close(self) -> None:
        """Let the connection go."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def go_on(self) -> bool:
        """Take what has come; True when the greeting of a ZeroMQ peer is there."""
        if self.socket is None:
            return False
        if not self.is_connected:
            status = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if status:
                self.fail(status)
                return False
            self.is_connected = True
            return False
        try:
            data = self.socket.recv(GREETING_LENGTH - len(self.greeting))
        except BlockingIOError:
            return False
        except OSError as error:
            self.fail(error.errno or errno.EIO)
            return False
        self.greeting += data
        if not data or not is_greeting(self.greeting):
            said = f" (it says {self.greeting[:20]!r})" if self.greeting else ""
            self.reason = f"wrong protocol: what listens there is no scitq server{said}"
            self.close()
            return False
        return len(self.greeting) == GREETING_LENGTH


def is_greeting(data: bytes) -> bool:
    """Whether `data` begins like the signature that every ZeroMQ peer sends first: 0xff, 8 bytes, 0x7f."""
    return data[:1] in {b"", b"\xff"} and (len(data) < GREETING_LENGTH or data[9:10] == b"\x7f")


def _weight(reason: str) -> int:
    """A listener that answered in some way tells more than a refusal, and that more than an address this machine can't use."""
    return 0 if reason.startswith(("wrong", "timed")) else 1 if reason.startswith("connection") else 2


def _why_silent(silent: socket.socket, limit_s: float) -> str:
    try:
        silent.settimeout(limit_s)
        silent.sendall(b"GET / HTTP/1.0\r\n\r\n")
        said = silent.recv(20)
    except OSError:
        said = b""
    if said[:4] == b"HTTP":
        return "wrong protocol: an HTTP server listens there"
    if said and said[0] != 0xFF:
        return f"wrong protocol: what listens there is no scitq server (it says {said!r})"
    return "timed out: it takes connections but says nothing (the server hangs or is stopped, or it is another program)"


def find_peer(address: Address, timeout_s: float) -> str:
    """The numeric host of `address` where a ZeroMQ peer greets, all its addresses tried at once; UnavailableError with the reason."""
    last_question_s = min(0.5, timeout_s / 4)  # kept for asking one that says nothing what it is
    deadline = clock.monotonic_s() + timeout_s - last_question_s
    tries = [_Try(family, host, address.port) for family, host in resolve(address, timeout_s)]
    try:
        with selectors.DefaultSelector() as selector:
            for one in tries:
                if one.socket is not None:
                    selector.register(one.socket, selectors.EVENT_WRITE, one)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - clock.monotonic_s()))
                if not ready and clock.monotonic_s() >= deadline:
                    break
                for key, _events in ready:
                    one = key.data
                    if one.go_on():
                        return str(one.host)
                    if one.socket is None:
                        selector.unregister(key.fileobj)
                    elif one.is_connected and key.events != selectors.EVENT_READ:
                        selector.modify(key.fileobj, selectors.EVENT_READ, one)
        for one in tries:
            if one.socket is not None:
                one.reason = _why_silent(one.socket, last_question_s) if one.is_connected else _REASONS[errno.ETIMEDOUT]
        reasons = sorted(dict.fromkeys(one.reason for one in tries), key=_weight)
        raise unavailable(address, reasons[0], [one.shown for one in tries if one.shown != str(address)])
    finally:
        for one in tries:
            one.close()
