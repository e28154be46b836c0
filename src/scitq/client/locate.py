"""Where the server is: its address, and which of several servers of this user is meant (contract AUTH-11)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from scitq.errors import UsageError
from scitq.util import paths

DEFAULT_PORT = 50051


class Address(NamedTuple):
    """A host (without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RunningServer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server of this user says of itself in the runtime folder. `started`: of its process, in ticks since the boot."""

    host: str
    port: int
    key: str
    pid: int
    started: int
    data_dir: str
    config: str = ""
    since_ms: int = 0


def parse_address(text: str, source: str = "the server's address") -> Address:
    """The address in `host`, `host:port`, `[::1]:port` or `::1`; UsageError that names `source` for anything else."""
    text = text.strip()
    if text.startswith("tcp://"):
        text = text[len("tcp://") :]
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        port = rest[1:] if rest.startswith(":") else None
        if not closing or (rest and port is None):
            raise UsageError(f"{source}: {text!r} is no address; write host:port, or [::1]:port")
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, given = text.partition(":")
        port = given if colon else None
    if not host or any(c.isspace() or c in "/@" for c in host):
        raise UsageError(f"{source}: {text!r} is no address; write host:port, for example localhost:{DEFAULT_PORT}")
    if port is None:
        return Address(host, DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UsageError(f"{source}: {port!r} is no port; write host:port with a number from 1 to 65535")
    return Address(host, int(port))


def servers_folder() -> Path:
    """Where the servers of this user leave word of themselves."""
    return paths.runtime_folder() / "servers"


def process_started(pid: int) -> int | None:
    """When the process began, in ticks since the boot; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])


def running_servers() -> list[RunningServer]:
    """The live servers of this user on this host: the default port's first, then the newest."""
    folder = servers_folder()
    found = []
    try:
        if folder.stat().st_uid != os.getuid():
            return []
        files = sorted(folder.glob("*.json"))
    except OSError:
        return []
    for file in files:
        try:
            server = msgspec.json.decode(file.read_bytes(), type=RunningServer)
        except (OSError, msgspec.MsgspecError):
            continue
        if process_started(server.pid) == server.started:
            found.append(server)
    return sorted(found, key=lambda server: (server.port != DEFAULT_PORT, -server.since_ms))


def find_server(given: str | None = None, configured: Address | None = None) -> Address:
    """The server to talk to: `given` (--server), $SCITQ_SERVER, `configured` (an agent's scitq.yaml), this user's own, the local one."""
    if given:
        return parse_address(given, "--server")
    named = os.environ.get("SCITQ_SERVER", "").strip()
    if named:
        return parse_address(named, "SCITQ_SERVER")
    if configured:
        return configured
    own = running_servers()
    if own:
        return Address(own[0].host, own[0].port)
    return Address("localhost", DEFAULT_PORT)


def own_server(address: Address) -> RunningServer | None:
    """The live server of this user at `address`."""
    local = {"localhost", "127.0.0.1", "::1"}
    for server in running_servers():
        if server.port == address.port and (server.host == address.host or (server.host in local and address.host in local)):
            return server
    return None


def announced_key(address: Address) -> str | None:
    """The public key of a live server of this user at `address`: told by itself through a private file, so no pin is needed."""
    server = own_server(address)
    return server.key if server else None
