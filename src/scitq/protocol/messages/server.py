"""Messages about the server itself."""

from __future__ import annotations

from scitq.protocol.registry import ADMINS, USERS, Reply, Request, request


class ServerState(Reply, frozen=True, kw_only=True):
    """How the server is."""

    version: str
    started_ms: int
    now_ms: int
    port: int
    pid: int
    data_folder: str
    tasks: dict[str, int]
    workers: dict[str, int]
    connections: int
    """Peers that were heard within the last minute or so."""
    memory_bytes: int
    loop_busy_percent: float = 0.0
    disk_free_bytes: int = 0
    is_draining: bool = False


@request("server.status", USERS, ServerState)
class ServerStatus(Request, frozen=True, kw_only=True):
    """Figures of the server."""


@request("server.stop", ADMINS)
class ServerStop(Request, frozen=True, kw_only=True):
    """End the server; with `is_draining`, when no task is on a worker any more (no new ones are given)."""

    is_draining: bool = False


class BackupMade(Reply, frozen=True, kw_only=True):
    """Where the copy lies, on the server's disk."""

    path: str
    size_bytes: int


@request("server.backup", ADMINS, BackupMade)
class ServerBackup(Request, frozen=True, kw_only=True):
    """Copy the database while it is in use, to `path` on the server's disk (empty: into the data folder)."""

    path: str = ""
