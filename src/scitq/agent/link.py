"""The agent's connection to the server: one DEALER with CURVE, requests sent again until they are answered, pushes handed on.

After every (re)connection the first message is `agent.register`; nothing else is sent before it is answered.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Callable
from contextlib import suppress

import zmq
from zmq.utils.monitor import recv_monitor_message

from scitq.agent.loop import Loop, Timer
from scitq.errors import NotLoggedInError, ProtocolError, ScitqError, from_code
from scitq.protocol import envelope, registry
from scitq.protocol.messages.agent import AgentRegister, AgentUnknown, Registered
from scitq.protocol.registry import Reply, Request

logger = logging.getLogger(__name__)

ANSWER_WITHIN_S = 10.0
"""A request without an answer is sent again after so long; the server takes each only once."""
_MONITORED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_CONNECT_DELAYED
    | zmq.EVENT_CONNECT_RETRIED
)


class Pending:
    """A request under way."""

    def __init__(
        self, make: Callable[[], Request], answered: Callable[[Reply], None], failed: Callable[[ScitqError], None], reply: type[Reply]
    ) -> None:
        self.make = make
        self.reply = reply
        self.answered = answered
        self.failed = failed
        self.timer: Timer | None = None


class Link:
    """Lives in the loop's thread alone.

    describe: makes the registration. registered, pushed: called with what the server says. refused: called when the
    server refuses the registration.
    """

    def __init__(
        self,
        loop: Loop,
        server: str,
        server_key: str,
        token: str,
        *,
        describe: Callable[[], AgentRegister],
        registered: Callable[[Registered], None],
        pushed: Callable[[Reply], None],
        refused: Callable[[ScitqError], None],
    ) -> None:
        self._loop = loop
        self._server = server
        self._server_key = server_key.encode("ascii")
        self._token = token
        self._describe = describe
        self._registered = registered
        self._pushed = pushed
        self._refused = refused
        self._context = zmq.Context()
        self._pending: dict[str, Pending] = {}
        self._registration = ""
        self._tries = 0
        self.is_registered = False
        self._open()

    def request(self, message: Request, answered: Callable[[Reply], None], failed: Callable[[ScitqError], None] | None = None) -> None:
        """Send `message` until it is answered, over any number of connections."""
        self.request_made(type(message), lambda: message, answered, failed)

    def request_made(
        self,
        kind: type[Request],
        make: Callable[[], Request],
        answered: Callable[[Reply], None],
        failed: Callable[[ScitqError], None] | None = None,
    ) -> None:
        """The same, for a message that is made anew each time that it is sent."""
        request_id = secrets.token_hex(8)
        self._pending[request_id] = Pending(make, answered, failed or self._log_failure, registry.of_type(kind).reply)
        if self.is_registered:
            self._send(request_id)

    @property
    def unanswered(self) -> int:
        """Requests under way."""
        return len(self._pending)

    def close(self) -> None:
        """Drop the connection; what was handed over goes out within a second."""
        self._close_sockets(linger_ms=1000)
        self._context.term()

    # --- the sockets -----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        socket = self._context.socket(zmq.DEALER)
        public, secret = zmq.curve_keypair()
        socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = public, secret, self._server_key
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, 1)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, envelope.MOST_BYTES)
        socket.setsockopt(zmq.RECONNECT_IVL, 100 + random.randrange(200))  # noqa: S311 - jitter
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000 + random.randrange(3000))  # noqa: S311 - jitter
        socket.setsockopt(zmq.HEARTBEAT_IVL, 5000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 20000)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 10000)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        self._monitor = socket.get_monitor_socket(_MONITORED)
        socket.connect(f"tcp://{self._server}")
        self._socket = socket
        self._loop.watch(self._fd(socket), self._receive)
        self._loop.watch(self._fd(self._monitor), self._observe)
        self._loop.post(self._observe)

    @staticmethod
    def _fd(socket: zmq.Socket[bytes]) -> int:
        return int(socket.getsockopt(zmq.FD))

    @staticmethod
    def _has_input(socket: zmq.Socket[bytes]) -> bool:
        return bool(int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def _close_sockets(self, linger_ms: int = 0) -> None:
        self._loop.unwatch(self._fd(self._socket))
        self._loop.unwatch(self._fd(self._monitor))
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=linger_ms)

    def _reopen(self) -> None:
        self._lose()
        self._close_sockets()
        self._open()

    def _observe(self) -> None:
        while not self._monitor.closed and self._has_input(self._monitor):
            event = recv_monitor_message(self._monitor, zmq.NOBLOCK)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                logger.info("connected to %s", self._server)
                self._register()
            elif event == zmq.EVENT_DISCONNECTED:
                if self.is_registered:
                    logger.warning("the connection to %s is cut; trying again until it is back, work goes on", self._server)
                self._lose()
            elif event in (zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL):
                self._tries += 1
                if self._tries == 1:
                    logger.warning("%s does not accept this connection; its key may have changed, or it is no scitq server", self._server)
                self._loop.after(self._backoff_s(), self._reopen)
                return
            elif event == zmq.EVENT_CONNECT_RETRIED and self._tries == 0:
                self._tries = 1
                logger.warning("%s is not reachable; trying again", self._server)
        self._loop.post(self._receive)

    def _backoff_s(self) -> float:
        return min(60.0, 2.0 ** min(self._tries, 6)) * (0.5 + random.random())  # noqa: S311 - jitter

    def _lose(self) -> None:
        self.is_registered = False
        self._registration = ""
        for pending in self._pending.values():
            if pending.timer is not None:
                pending.timer.cancel()

    # --- messages --------------------------------------------------------------------------------------------------

    def _transmit(self, kind: str, request_id: str, message: Request) -> None:
        with suppress(zmq.Again):
            self._socket.send(envelope.pack(kind, request_id, self._token, message), zmq.NOBLOCK)
        if self._has_input(self._socket):  # the descriptor tells of changes only
            self._loop.post(self._receive)

    def _send(self, request_id: str) -> None:
        pending = self._pending.get(request_id)
        if pending is None or not self.is_registered:
            return
        message = pending.make()
        if pending.timer is not None:
            pending.timer.cancel()
        pending.timer = self._loop.after(ANSWER_WITHIN_S, lambda: self._send(request_id))
        self._transmit(registry.of_type(type(message)).kind, request_id, message)

    def _register(self) -> None:
        self.is_registered = False
        request_id = self._registration = secrets.token_hex(8)
        self._transmit("agent.register", request_id, self._describe())

        def again() -> None:
            if self._registration == request_id:
                self._register()

        self._loop.after(ANSWER_WITHIN_S * (1 + random.random()), again)  # noqa: S311 - jitter

    def _receive(self) -> None:
        while not self._socket.closed and self._has_input(self._socket):
            try:
                frame = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._take(envelope.unpack(frame))
            except ProtocolError as error:
                logger.error("a message of the server can't be read: %s", error)

    def _take(self, message: envelope.Envelope) -> None:
        if not message.request_id:
            kind = registry.push_type(message.kind)
            if kind is AgentUnknown:
                if self.is_registered or not self._registration:
                    self._lose()
                    self._register()
            elif kind is not None:
                self._pushed(envelope.read_body(message.body, kind))
        elif message.request_id == self._registration:
            self._answer_registration(message)
        else:
            pending = self._pending.pop(message.request_id, None)
            if pending is None:
                return
            if pending.timer is not None:
                pending.timer.cancel()
            if message.kind == "error":
                error = _error(message)
                if isinstance(error, NotLoggedInError) and self.is_registered:
                    self._pending[message.request_id] = pending  # the server has forgotten this connection
                    self._lose()
                    self._loop.after(0.1, self._register_if_lost)
                else:
                    pending.failed(error)
            else:
                pending.answered(envelope.read_body(message.body, pending.reply))

    def _answer_registration(self, message: envelope.Envelope) -> None:
        self._registration = ""
        if message.kind == "error":
            error = _error(message)
            self._tries += 1
            logger.warning("the server refuses this worker: %s", error)
            self._refused(error)
            self._loop.after(self._backoff_s(), self._register_if_lost)
            return
        self._tries = 0
        self.is_registered = True
        self._registered(envelope.read_body(message.body, Registered))
        for request_id in list(self._pending):
            self._send(request_id)

    def _register_if_lost(self) -> None:
        if not self.is_registered and not self._registration:
            self._register()

    def _log_failure(self, error: ScitqError) -> None:
        logger.error("the server refused a message: %s", error)


def _error(message: envelope.Envelope) -> ScitqError:
    body = envelope.read_body(message.body, envelope.ErrorBody)
    return from_code(body.code, body.message)
