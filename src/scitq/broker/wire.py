"""The broker's sockets: the encrypted ROUTER, and the key port that tells the server's public key and nothing else."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator

import zmq

from scitq.errors import ScitqError
from scitq.protocol.envelope import MOST_BYTES

logger = logging.getLogger(__name__)
_SEND_QUEUE = 1000
"""Messages kept for a peer that does not read; with offers of 1,000 tasks that is plenty, and bounds the memory."""
_KEY_GREETING = b"scitq1 "


def raise_file_limit() -> None:
    """Let this process open as many files as it may; every connection takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Wire:
    """Owned by the loop's thread."""

    def __init__(self, bind: str, port: int, secret: bytes, public: bytes) -> None:
        """Bind both ports; ScitqError when one is taken."""
        self.context = zmq.Context(io_threads=1)
        self.context.set(zmq.MAX_SOCKETS, self.context.get(zmq.SOCKET_LIMIT))
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.LINGER, 500)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.router.setsockopt(zmq.MAXMSGSIZE, MOST_BYTES)
        self.router.setsockopt(zmq.SNDHWM, _SEND_QUEUE)
        self.router.setsockopt(zmq.RCVHWM, 10_000)
        self.router.setsockopt(zmq.BACKLOG, 4096)
        self.router.setsockopt(zmq.HEARTBEAT_IVL, 15_000)
        self.router.setsockopt(zmq.HEARTBEAT_TIMEOUT, 60_000)
        self.router.setsockopt(zmq.IPV6, int(":" in bind or bind == "*"))
        self.router.curve_server = True
        self.router.curve_secretkey = secret
        self.router.curve_publickey = public
        self.keys = self.context.socket(zmq.ROUTER)
        self.keys.setsockopt(zmq.LINGER, 0)
        self.keys.setsockopt(zmq.MAXMSGSIZE, 256)
        self.keys.setsockopt(zmq.IPV6, int(":" in bind or bind == "*"))
        self._public = public
        host = f"[{bind}]" if ":" in bind else bind
        for socket, number in ((self.router, port), (self.keys, port + 1)):
            try:
                socket.bind(f"tcp://{host}:{number}")
            except zmq.ZMQError as error:
                self.context.destroy(linger=0)
                raise ScitqError(
                    f"can't listen on {bind}:{number}: {error.strerror}; is another server running there? (scitq.port)"
                ) from None

    def receive(self, most: int) -> Iterator[tuple[bytes, bytes]]:
        """What has arrived, as (peer, frame), at most so many."""
        for _ in range(most):
            try:
                parts = self.router.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if len(parts) == 2:
                yield parts[0], parts[1]

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Hand a frame over; whether the peer is still there and reads."""
        try:
            self.router.send_multipart([peer, frame], zmq.NOBLOCK)
        except zmq.Again:
            logger.debug("a peer does not read; a message to it is dropped")
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            raise
        return True

    def answer_keys(self) -> None:
        """Tell everybody who asked the public key."""
        while True:
            try:
                parts = self.keys.recv_multipart(zmq.NOBLOCK)
                self.keys.send_multipart([parts[0], *([b""] if len(parts) > 2 else []), _KEY_GREETING + self._public], zmq.NOBLOCK)
            except zmq.ZMQError:
                return

    def close(self) -> None:
        """Send what is queued, within half a second, and close."""
        self.router.close()
        self.keys.close(linger=0)
        self.context.term()
