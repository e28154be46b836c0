"""What an agent is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """The command line of `scitq agent`, resolved: address, key and token found, folders absolute.

    server: `host:port` (an IPv6 address in brackets). server_key: its public CURVE key, Z85. runtime: auto, docker,
    podman, apptainer or bare. step: name or id of the step that this worker serves. machine: the name that the server
    chose when it had the machine made. seconds_left: until the end of the allocation, None when there is none.
    idle_timeout_s: end after so long without a task, None never.
    """

    server: str
    server_key: str
    token: str = field(repr=False)
    work_dir: Path
    concurrency: int | None = None
    prefetch: int | None = None
    allows_bare: bool = True
    runtime: str = "auto"
    name: str = ""
    step: str = ""
    machine: str = ""
    provider: str = ""
    region: str = ""
    flavor: str = ""
    idle_timeout_s: float | None = None
    seconds_left: float | None = None
    log_level: str = "INFO"
