"""Connecting: sockets with time limits that the kernel keeps."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from contextlib import suppress
from typing import Any, Final

from scitq.storage.base import Cancel

CONNECT_TIMEOUT_S: Final = 20.0
SILENCE_TIMEOUT_S: Final = 60.0
SOCKET_TIMEOUT_S: Final = 600.0
"""Patience with a Unix socket, behind which whole transfers may be made before the answer."""


def _set_patience(target: socket.socket, seconds: float) -> None:
    """Time limits kept by the kernel: those of Python cost another system call, and a turn of the interpreter lock, for each one."""
    target.setblocking(True)
    limit = struct.pack("ll", int(seconds), 0)
    target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    target.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def connect(host: str, port: int, cancel: Cancel) -> socket.socket:
    """A connected socket, or one to a Unix path; waits in short pieces so that cancelling works during the wait as well."""
    if host.startswith("/"):
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _set_patience(local, SOCKET_TIMEOUT_S)
            local.connect(host)
        except OSError:
            local.close()
            raise
        return local
    last: OSError = ConnectionRefusedError(errno.ECONNREFUSED, "connection refused")
    for family, kind, protocol, _, address in _addresses(host, port, cancel):
        candidate = socket.socket(family, kind, protocol)
        try:
            candidate.setblocking(False)
            status = candidate.connect_ex(address)
            waited_s = 0.0
            while status in {errno.EINPROGRESS, errno.EALREADY}:
                cancel.check()
                poller = select.poll()
                poller.register(candidate, select.POLLOUT)
                if poller.poll(200):
                    status = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    break
                waited_s += 0.2
                if waited_s >= CONNECT_TIMEOUT_S:
                    raise TimeoutError("no connection in time")
            if status:
                raise OSError(status, os.strerror(status))
            _set_patience(candidate, SILENCE_TIMEOUT_S)
            candidate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError as error:
            candidate.close()
            last = error
        except BaseException:
            candidate.close()
            raise
        else:
            return candidate
    raise last


def _addresses(host: str, port: int, cancel: Cancel) -> list[Any]:
    """Where `host` is, as socket.getaddrinfo tells. Names are looked up in a thread, for a name server's silence can't be interrupted."""
    with suppress(socket.gaierror, UnicodeError):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: list[Any] = []
    errors: list[OSError] = []
    ended = threading.Event()

    def look() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            errors.append(error)
        except UnicodeError:
            errors.append(socket.gaierror(socket.EAI_NONAME, "no name of a host"))
        ended.set()

    with cancel.on_cancel(ended.set):
        threading.Thread(target=look, name=f"name-{host}", daemon=True).start()
        ended.wait()
    cancel.check()
    if errors:
        raise errors[0]
    return found
