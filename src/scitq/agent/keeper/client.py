"""The agent's end of the keeper: finds the one that runs already, or forks it."""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import msgspec

from scitq.agent.keeper import process
from scitq.agent.keeper.messages import Command, Frames, Notice, encode
from scitq.errors import ScitqError
from scitq.util import filesystems, proc

_SOCKET = "keeper-1.sock"
"""The number is raised when the messages change, so that an updated agent never speaks to an old keeper."""
GREETING_WITHIN_S = 10.0


class KeeperClient:
    """A connection to the keeper of `work_dir`; made while this process has one thread. `descriptor` is for polling."""

    def __init__(self, work_dir: Path) -> None:
        self._socket = _connect(work_dir)
        self._socket.setblocking(False)
        self._frames = Frames(msgspec.msgpack.Decoder(Notice))
        self._out = bytearray()
        self.descriptor = self._socket.fileno()
        self.is_lost = False

    @property
    def has_unsent(self) -> bool:
        """Whether commands wait for room in the socket."""
        return bool(self._out)

    def command(self, message: Command) -> None:
        """Queue a command; `flush` sends."""
        self._out += encode(message)

    def flush(self) -> None:
        """Send what fits."""
        if self._out and not self.is_lost:
            try:
                del self._out[: self._socket.send(self._out)]
            except BlockingIOError:
                pass
            except OSError:
                self.is_lost = True

    def receive(self) -> list[Notice]:
        """What has come; sets `is_lost` when the keeper is gone."""
        try:
            data = self._socket.recv(1 << 20)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.is_lost = True
            return []
        return self._frames.feed(data)  # type: ignore[return-value] # the decoder knows notices only

    def close(self) -> None:
        """Part from the keeper, which stays while it has something to keep."""
        self._socket.close()


def _connect(work_dir: Path) -> socket.socket:
    folder = os.open(work_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # by way of /proc, because the path of a Unix socket has at most 107 bytes
    address = f"/proc/self/fd/{folder}/{_SOCKET}"
    try:
        with suppress(OSError):
            return _greeted(_try(address))
        with suppress(FileNotFoundError):
            (work_dir / _SOCKET).unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(address)
        except OSError as error:  # sshfs, SMB and others have no sockets
            listener.close()
            kind = filesystems.kind_of(work_dir) or "unknown"
            raise ScitqError(
                f"no socket can be made in {work_dir} (file system {kind}): {error.strerror}; name a folder on a local disk by --work-dir"
            ) from None
        (work_dir / _SOCKET).chmod(0o600)
        listener.listen(2)
        child = proc.fork()
        if child == 0:
            _become_keeper(listener, work_dir)
        os.waitpid(child, 0)
        listener.close()
        return _try(address)
    finally:
        os.close(folder)


def _try(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return connection


def _greeted(connection: socket.socket) -> socket.socket:
    """Wait for the keeper's first word: one that has just decided to end still takes a connection, and closes it unheard."""
    if select.select([connection], [], [], GREETING_WITHIN_S)[0]:
        try:
            is_open = bool(connection.recv(1, socket.MSG_PEEK))
        except OSError:
            is_open = False
        if not is_open:
            connection.close()
            raise ConnectionResetError
    return connection


def _become_keeper(listener: socket.socket, work_dir: Path) -> None:
    """Never returns."""
    try:
        if proc.fork():  # the keeper is nobody's child, so that the agent need not reap it
            os._exit(0)
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        log = os.open(work_dir / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for target, source in ((0, null), (1, null), (2, log)):
            os.dup2(source, target)
        kept = listener.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") < 1 << 20 else 1 << 16)
        gc.freeze()
        process.serve(listener)
        os._exit(0)
    except BaseException:  # noqa: BLE001 - a fork must not go on as a second agent
        traceback.print_exc(file=sys.stderr)
        os._exit(1)
