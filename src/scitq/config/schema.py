"""The typed schema of scitq.yaml (docs/configuration.md is made from it)."""

from __future__ import annotations

from typing import Any

import msgspec

DEFAULT_PORT = 50051


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The root of all sections: an unknown key is an error."""


class ServerSection(Section, frozen=True, kw_only=True):
    """`scitq:`, the server itself. Durations are written like 90s, 15m, 2h, 7d; sizes like 500M, 10G."""

    server_fqdn: str = "localhost"
    port: int = DEFAULT_PORT
    bind: str = "127.0.0.1"
    """Address to listen on; `*` for all. A server that other machines shall reach needs `*` or its own address."""
    data_dir: str = ""
    """Where the database, logs and keys lie; empty: the user's data folder."""
    admin_user: str = "admin"
    admin_hashed_password: str = ""
    """Made by `scitq hashpassword`; bcrypt ($2a$, $2b$)."""
    token_secret: str = ""
    """Signs the tokens; empty: a secret kept in data_dir."""
    worker_token: str = ""
    """What agents show; empty: a secret kept in data_dir."""
    token_ttl: str = "30d"  # noqa: S105 - a duration
    log_level: str = "INFO"
    max_task_log: str = "10G"
    """Output of one task that is kept; what comes after is dropped with a note."""
    heartbeat: str = "5s"
    worker_offline_after: str = "20s"
    """Silence after which a worker is shown offline and what it has not accepted goes back to the queue."""
    worker_lost_after: str = "3m"
    """Silence after which its tasks are lost; a cut of the network that is shorter harms nothing."""
    network_filesystem: str = "exclusive"
    """What to do when data_dir is on NFS, Lustre, …: `exclusive` (safe locking without shared memory) or `refuse`."""


class WorkerSection(Section, frozen=True, kw_only=True):
    """`worker:`, rules for all workers."""

    idle_timeout: str = "5m"
    """A deployed worker without work for so long is released."""
    release_after: str = "30s"
    """A recruited worker without work is released after so long when its workflow has nothing left that could come to it."""
    never_worked_timeout: str = "15m"
    """A deployed worker that never got a task is released after so long."""
    offline_timeout: str = "10m"
    """A deployed worker that is offline for so long is deleted."""
    installing_timeout: str = "30m"
    """A deployed machine whose agent does not report in so long has failed."""
    janitor_period: str = "30s"
    """How often providers are asked which machines there are."""
    max_failures: int = 5
    """So many tasks in a row failing the same way by the worker's own fault set it aside; 0 never does."""
    cache_size: str = ""
    """Most bytes of shared resources kept; empty: half of the disk."""
    min_free_disk: str = "1G"
    """Resources are evicted, and downloads refused, below this."""
    file_roots: list[str] = []
    """Folders of the worker's disk that file:// URIs may name."""
    keep_failed_uploads: str = "7d"
    transfers: int = 8
    """Files moved at once by one worker."""
    network: str = "bridge"
    """Network of containers: bridge, host or none."""
    max_extract_files: int = 1_000_000
    max_extract_size: str = "2T"


class RegistrySection(Section, frozen=True, kw_only=True):
    """`registries.<host>:`, credentials of a private image registry."""

    username: str = ""
    password: str = ""


class Config(Section, frozen=True, kw_only=True):
    """The whole file. `rclone` holds storages by name, with rclone's own option names; `providers` by kind and name."""

    scitq: ServerSection = ServerSection()
    worker: WorkerSection = WorkerSection()
    rclone: dict[str, dict[str, Any]] = {}
    registries: dict[str, RegistrySection] = {}
    providers: dict[str, dict[str, dict[str, Any]]] = {}
