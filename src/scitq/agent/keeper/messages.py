"""What agent and keeper tell each other over a Unix socket: frames of four bytes of length and a msgpack body."""

from __future__ import annotations

import struct

import msgspec

LENGTH = struct.Struct(">I")
Key = tuple[int, int]
"""Task id and attempt number."""


class Start(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Run `argv` in `folder`, a session of its own; `blob` is given back to an agent that adopts it."""

    key: Key
    argv: list[str]
    env: dict[str, str]
    folder: str
    log: str
    log_cap: int
    blob: bytes
    most_memory_bytes: int = 0
    """Killed when all its processes use more; 0: no limit."""


class Signal(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Send a signal to all processes of a child, or to its first one alone."""

    key: Key
    number: int
    to_first: bool = False


class Release(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Forget an ended child."""

    key: Key


class Quit(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Kill all children and end."""


Command = Start | Signal | Release | Quit


class Exited(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A child and all that it left behind have ended and its output is read.

    status: exit status, or minus the signal's number. error: why it could not be started (status is then -1000).
    log: the whole framed log when it is small; else it is in the file. log_bytes: its size. Seconds and bytes.
    """

    key: Key
    status: int
    error: str
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    read_bytes: int
    written_bytes: int
    log: bytes
    log_bytes: int
    is_out_of_memory: bool = False


class Grown(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The log file of a running child holds so many bytes now."""

    key: Key
    log_bytes: int


class Kept(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """What the keeper has, told once at the start of a connection: a running child, or an ended one not yet released."""

    key: Key
    blob: bytes
    pid: int
    age_s: float
    log_bytes: int
    exited: Exited | None


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """All that is kept has been told."""

    pid: int


Notice = Exited | Grown | Kept | Ready
NOT_STARTED = -1000


class Frames:
    """Cuts a byte stream into messages of one union type."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Command] | msgspec.msgpack.Decoder[Notice]) -> None:
        self._decoder = decoder
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Command | Notice]:
        """The messages that `data` completes."""
        rest = self._rest
        rest += data
        found: list[Command | Notice] = []
        position = 0
        while len(rest) - position >= LENGTH.size:
            (length,) = LENGTH.unpack_from(rest, position)
            end = position + LENGTH.size + length
            if len(rest) < end:
                break
            found.append(self._decoder.decode(bytes(rest[position + LENGTH.size : end])))
            position = end
        if position:
            del rest[:position]
        return found


_encoder = msgspec.msgpack.Encoder()


def encode(message: Command | Notice) -> bytes:
    """One frame."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body
