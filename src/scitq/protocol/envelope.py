"""The outermost form of every message, and its coding: msgpack with limits on size, length and depth (docs/protocol.md)."""

from __future__ import annotations

from typing import Any, TypeVar

import msgpack
import msgspec

from scitq.errors import ProtocolError

PROTOCOL_VERSION = 1
MOST_BYTES = 64 * 1024 * 1024
"""The longest message that is read; a longer one ends the connection (ZMQ_MAXMSGSIZE)."""
LONG_BYTES = 64 * 1024
"""From this length on a message is looked into only after its sender was admitted, and nobody without a token sends one."""
_HEAD_BYTES = 16 * 1024

T = TypeVar("T")


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """One message: protocol version, kind, request id (empty in a push), the sender's token, and the body still coded.

    A reply has the request's id and the kind `ok`, `error` or that of its own message.
    """

    version: int
    kind: str
    request_id: str
    token: str
    body: msgspec.Raw


class ErrorBody(msgspec.Struct, frozen=True):
    """Why a request was refused: a code of scitq.errors, a message for people, and which item of the request is meant."""

    code: str
    message: str
    position: int | None = None


_encoder = msgspec.msgpack.Encoder()
_envelope_decoder = msgspec.msgpack.Decoder(Envelope)
_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def pack(kind: str, request_id: str, token: str, body: object) -> bytes:
    """The frame of one message; ProtocolError when it is longer than any peer would read."""
    frame = _encoder.encode((PROTOCOL_VERSION, kind, request_id, token, body))
    if len(frame) > MOST_BYTES:
        raise ProtocolError(f"a message of {len(frame)} bytes is over the limit of {MOST_BYTES}; send less at a time")
    return frame


def peek(frame: bytes) -> tuple[str, str, str]:
    """Kind, request id and token of a long frame, from its first bytes alone; ProtocolError when these are no message of ours."""
    walker = msgpack.Unpacker(max_buffer_size=_HEAD_BYTES)
    walker.feed(frame[:_HEAD_BYTES])
    try:
        if walker.read_array_header() == len(Envelope.__struct_fields__):
            _, kind, request_id, token = (walker.unpack() for _ in range(4))
            if isinstance(kind, str) and isinstance(request_id, str) and isinstance(token, str):
                return kind, request_id, token
    except (msgpack.UnpackException, ValueError, RecursionError, UnicodeError):
        pass
    raise ProtocolError("no message of scitq")


def unpack(frame: bytes) -> Envelope:
    """The envelope in `frame`, its body untouched; ProtocolError for anything that is no message of ours.

    The frame is first walked through without making objects, so that lengths that lie and nests that are too deep
    cost nothing.
    """
    if len(frame) > MOST_BYTES:
        raise ProtocolError(f"a message of {len(frame)} bytes is over the limit of {MOST_BYTES}")
    try:
        walker = msgpack.Unpacker(max_buffer_size=MOST_BYTES)
        walker.feed(frame)
        walker.skip()
        if walker.tell() != len(frame):
            raise ProtocolError("bytes follow after the message")
        envelope = _envelope_decoder.decode(frame)
    except ProtocolError:
        raise
    except (msgspec.MsgspecError, msgpack.UnpackException, ValueError, RecursionError, UnicodeError) as error:
        raise ProtocolError(f"no message of scitq: {error}") from None
    if envelope.version != PROTOCOL_VERSION:
        raise ProtocolError(f"protocol version {envelope.version} is not spoken here (this is {PROTOCOL_VERSION}); update the older side")
    return envelope


def read_body(body: msgspec.Raw | bytes, kind: type[T]) -> T:
    """The typed message in `body`; ProtocolError that names the field when it does not fit `kind`."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(body)  # type: ignore[no-any-return] # the decoder was made for T
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise ProtocolError(f"bad message body: {error}") from None
