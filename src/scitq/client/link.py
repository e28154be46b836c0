"""The socket to the server: deadlines, reasons for failures, and requests sent again when the server was restarted."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from types import TracebackType

import zmq

from scitq.client import pins, probe
from scitq.client.locate import Address, announced_key
from scitq.errors import ProtocolError, UnavailableError, UsageError
from scitq.protocol import envelope
from scitq.util import clock

HANDSHAKE_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 60.0
"""How long a server that is there may take for a request that does not say that it waits."""

_EVENT = struct.Struct("=Hi")
_EPIPE = 32


def timeout_s() -> float:
    """The handshake deadline: $SCITQ_TIMEOUT (seconds), else 5."""
    given = os.environ.get("SCITQ_TIMEOUT", "").strip()
    if not given:
        return HANDSHAKE_TIMEOUT_S
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86400:
        raise UsageError(f"SCITQ_TIMEOUT is {given!r}; it must be a number of seconds")
    return seconds


def _say(text: str) -> None:
    print(f"scitq: {text}", file=sys.stderr)


def _endpoint(host: str, port: int) -> str:
    return f"tcp://{Address(host, port)}"


def ask_key(context: zmq.Context[zmq.Socket[bytes]], address: Address, host: str, limit_s: float) -> str:
    """The public key that the server tells on its key port (docs/protocol.md, "First contact")."""
    port = address.port + 1
    advice = "ask the administrator for the server's key and set SCITQ_SERVER_KEY, or write it to known_servers"
    if port > 65535:
        raise probe.unavailable(address, f"it has no key port; {advice}")
    try:
        probe.find_peer(Address(host, port), limit_s)
    except UnavailableError as error:
        reason = str(error).partition(": ")[2].partition(". Is it")[0]
        raise probe.unavailable(address, f"the port answers, but its key port does not ({reason}); {advice}") from None
    with context.socket(zmq.REQ) as asking:
        asking.linger = 0
        asking.ipv6 = True
        asking.connect(_endpoint(host, port))
        asking.send(b"key")
        if not asking.poll(int(limit_s * 1000)):
            raise probe.unavailable(address, f"its key port {port} does not answer; {advice}")
        words = asking.recv().decode("ascii", "replace").split(" ", 1)
    if len(words) != 2 or words[0] != "scitq1" or not pins.is_key(words[1].strip()):
        raise probe.unavailable(address, f"wrong protocol: what listens on {port} tells no key of scitq; {advice}")
    return words[1].strip()


class Link:
    """One encrypted connection to one server; used by one thread."""

    def __init__(self, address: Address, *, on_note: Callable[[str], None] = _say) -> None:
        """Connects and shakes hands; UnavailableError with the reason when that fails. `on_note` gets remarks for people."""
        self.address = address
        self._note = on_note
        self._limit_s = timeout_s()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._is_up = False
        self._down_since = clock.monotonic_s()
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        deadline = clock.monotonic_s() + self._limit_s
        host = probe.find_peer(self.address, self._limit_s)
        self.host = host
        self.key, self._key_source = self._learn_key(host, max(0.5, deadline - clock.monotonic_s()))
        opened = self._socket = self._context.socket(zmq.DEALER)
        opened.linger = 0
        opened.ipv6 = True
        opened.sndhwm = opened.rcvhwm = 0
        opened.maxmsgsize = envelope.MOST_BYTES
        opened.handshake_ivl = max(1, int(self._limit_s * 1000))
        opened.reconnect_ivl = 50
        opened.reconnect_ivl_max = 1000
        opened.heartbeat_ivl = 2000
        opened.heartbeat_timeout = max(3000, int(self._limit_s * 1000))
        opened.curve_publickey, opened.curve_secretkey = zmq.curve_keypair()
        opened.curve_serverkey = self.key.encode()
        wanted = (
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_DISCONNECTED
        )
        self._monitor = opened.get_monitor_socket(wanted)
        opened.connect(_endpoint(host, self.address.port))
        while not self._is_up:
            left = deadline - clock.monotonic_s()
            if left <= 0:
                raise probe.unavailable(self.address, "timed out in the handshake: the server hangs")
            if self._monitor.poll(int(left * 1000) + 1):
                self._watch()

    def _learn_key(self, host: str, limit_s: float) -> tuple[str, str]:
        if not os.environ.get("SCITQ_SERVER_KEY", "").strip():
            told = announced_key(self.address)
            if told:
                return told, "the server itself"
        pinned = pins.find(self.address)
        if pinned:
            return pinned
        key = ask_key(self._context, self.address, host, limit_s)
        file = pins.add(self.address, key)
        kept = f"kept in {file}" if file else "NOT kept, for the configuration folder can't be written"
        self._note(f"first contact with the server {self.address}; its key {key}, fingerprint {pins.fingerprint(key)}, is {kept}")
        return key, str(file)

    def _watch(self) -> bool:
        """Take the events that have come; True when the connection was made anew."""
        assert self._monitor is not None
        came_up = False
        while self._monitor.poll(0):
            event, value = _EVENT.unpack(self._monitor.recv_multipart()[0])
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._is_up = came_up = True
            elif event == zmq.EVENT_DISCONNECTED:
                if self._is_up:
                    self._down_since = clock.monotonic_s()
                self._is_up = False
            elif event in {zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL} or value == _EPIPE:
                self._refuse_key(value != zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
        return came_up

    def _refuse_key(self, is_key: bool) -> None:
        if not is_key:
            raise probe.unavailable(self.address, "wrong protocol: the handshake failed (is the other side of another version?)")
        try:
            probe.find_peer(self.address, 0.5)
        except UnavailableError:
            return  # the server went away in the middle; it may come back
        raise probe.unavailable(
            self.address,
            f"the server's key is not the one in {self._key_source} (fingerprint {pins.fingerprint(self.key)}). "
            "Either somebody else answers in its place, or it was set up anew",
            hint="Ask the administrator for its key."
            if self._key_source == "SCITQ_SERVER_KEY"
            else f"Ask the administrator, and then remove the line of {self.address} there.",
        )

    def request(
        self, kind: str, token: str, body: object, *, reply_s: float = REPLY_TIMEOUT_S, patience_s: float | None = None
    ) -> envelope.Envelope:
        """Send one request and give its answer; sent again, with the same id, whenever the connection was made anew.

        reply_s: how long a server that is there may take. patience_s: how long it may be away (the handshake deadline by default).
        """
        assert self._socket is not None
        assert self._monitor is not None
        patience_s = self._limit_s if patience_s is None else patience_s
        request_id = os.urandom(12).hex()
        frame = envelope.pack(kind, request_id, token, body)
        self._socket.send(frame, copy=False)
        deadline = clock.monotonic_s() + reply_s
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while True:
            now = clock.monotonic_s()
            if self._is_up and now >= deadline:
                raise probe.unavailable(self.address, f"timed out: no answer to {kind} within {reply_s:g} s")
            if not self._is_up and now >= self._down_since + patience_s:
                probe.find_peer(self.address, min(1.0, self._limit_s))
                raise probe.unavailable(self.address, "the connection was lost and can't be made again")
            until = deadline if self._is_up else self._down_since + patience_s
            for ready, _events in poller.poll(int(max(0.0, until - now) * 1000) + 1):
                if ready is self._socket:
                    answer = envelope.unpack(self._socket.recv())
                    if answer.request_id == request_id:
                        return answer
                elif self._watch():
                    self._socket.send(frame, copy=False)
                    deadline = clock.monotonic_s() + reply_s

    def close(self) -> None:
        """End at once; what was not sent is dropped."""
        if self._socket is not None and not self._socket.closed:
            self._socket.disable_monitor()
            self._socket.close(linger=0)
        if self._monitor is not None and not self._monitor.closed:
            self._monitor.close(linger=0)
        self._context.destroy(linger=0)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def error_of(answer: envelope.Envelope) -> envelope.ErrorBody | None:
    """What an `error` reply says; None for any other reply."""
    if answer.kind != "error":
        return None
    return envelope.read_body(answer.body, envelope.ErrorBody)


def server_key(address: Address, *, on_note: Callable[[str], None] = _say) -> str:
    """The key that the server at `address` must have: known already, or asked at first contact and pinned then.

    UnavailableError when it must be asked and the server can't be reached.
    """
    if not os.environ.get("SCITQ_SERVER_KEY", "").strip():
        told = announced_key(address)
        if told:
            return told
    pinned = pins.find(address)
    if pinned:
        return pinned[0]
    limit_s = timeout_s()
    host = probe.find_peer(address, limit_s)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        key = ask_key(context, address, host, limit_s)
    finally:
        context.destroy(linger=0)
    file = pins.add(address, key)
    on_note(f"first contact with the server {address}; its key has the fingerprint {pins.fingerprint(key)} ({file or 'not kept'})")
    return key


__all__ = ["Link", "ProtocolError", "error_of", "server_key"]
