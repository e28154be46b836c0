"""A raw ZeroMQ peer: sends what the test says and gives back what comes, without scitq's client in between."""

from __future__ import annotations

import secrets
from types import TracebackType

import msgspec
import zmq

from scitq.protocol import envelope
from scitq.protocol.envelope import Envelope, ErrorBody


class RawPeer:
    """A DEALER with CURVE to a server on 127.0.0.1."""

    def __init__(self, port: int, server_key: str) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        public, secret = zmq.curve_keypair()
        self.socket.curve_publickey, self.socket.curve_secretkey = public, secret
        self.socket.curve_serverkey = server_key.encode()
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def send(self, *parts: bytes) -> None:
        self.socket.send_multipart(parts)

    def receive(self, timeout_s: float = 30.0) -> Envelope:
        assert self.socket.poll(round(timeout_s * 1000)), "nothing came"
        return envelope.unpack(self.socket.recv())

    def ask(self, kind: str, token: str, body: object) -> Envelope:
        """Send a request; its answer (pushes are passed over)."""
        request_id = secrets.token_hex(8)
        self.send(envelope.pack(kind, request_id, token, body))
        while True:
            answer = self.receive()
            if answer.request_id == request_id:
                return answer

    def refusal(self, kind: str, token: str, body: object) -> ErrorBody | None:
        """The error that answers a request; None when it was carried out."""
        answer = self.ask(kind, token, body)
        return msgspec.msgpack.decode(answer.body, type=ErrorBody) if answer.kind == "error" else None

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.context.destroy(linger=0)
