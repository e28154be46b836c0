"""Messages between the server and the agents."""

from __future__ import annotations

from typing import Any

import msgspec

from scitq.model.task import TaskSpec, Use
from scitq.protocol.registry import ANYONE, WORKERS, Reply, Request, push, request


class Hardware(Reply, frozen=True, kw_only=True):
    """What a worker has, with the limits of its cgroup; memory in GiB, disk in GB."""

    cpus: float
    mem_gib: float
    disk_gb: float
    gpus: int = 0
    gpu: str = ""
    gpumem_gib: float = 0.0
    requests: dict[str, int] = {}


class Held(Reply, frozen=True, kw_only=True):
    """An attempt that an agent has, with the status letter that it last reached there."""

    task_id: int
    attempt: int
    status: str


class Registered(Reply, frozen=True, kw_only=True):
    """What an agent needs to know. `storages`: the rclone section with its secrets. `registries`: of images.

    `unwanted`: held attempts to stop and forget.
    """

    worker_id: int
    concurrency: int
    prefetch: int
    heartbeat_s: float
    storages: dict[str, dict[str, str]] = {}
    registries: dict[str, dict[str, str]] = {}
    settings: dict[str, Any] = {}
    unwanted: list[tuple[int, int]] = []
    server_version: str = ""


@request("agent.register", WORKERS, Registered)
class AgentRegister(Request, frozen=True, kw_only=True):
    """First message of each connection. `uid` is the agent's own lasting id; `machine` the name that the server chose
    when it had the machine made (empty for one started by hand). `ends_ms`: end of its allocation, Unix ms by its clock,
    sent as seconds left (`seconds_left`), for clocks of two machines are never compared.
    """

    uid: str
    name: str
    host: str
    addresses: list[str] = []
    hardware: Hardware
    runtimes: list[str] = []
    allows_bare: bool = True
    concurrency: int | None = None
    prefetch: int | None = None
    machine: str = ""
    provider: str = ""
    region: str = ""
    flavor: str = ""
    seconds_left: float | None = None
    held: list[Held] = []
    version: str = ""
    step: str = ""
    is_first: bool = True
    """Whether this process has not registered before: then its own settings count, and a deleted worker becomes a new one."""


class AttemptEvent(msgspec.Struct, frozen=True, array_like=True):
    """One thing that happened to an attempt. `age_ms`: how long before the report was sent, by the agent's clock."""

    task_id: int
    attempt: int
    event: str
    age_ms: int = 0
    exit_status: int | None = None
    reason: str = ""
    use: Use | None = None
    is_own_fault: bool = False
    """The worker, not the task, is to blame (disk full, runtime broken): counts towards setting the worker aside."""
    cause: str = ""
    """For retry_on: exit, oom, lost, upload, limit, killed, fetch, image, start; empty when nothing failed."""


class LogChunk(msgspec.Struct, frozen=True, array_like=True):
    """A piece of an attempt's framed log; `offset` counts the bytes of this attempt's log before it."""

    task_id: int
    attempt: int
    offset: int
    data: bytes


class Stats(Reply, frozen=True, kw_only=True):
    """Live figures of a worker; rates are a second's, over the last interval. Percentages 0-100."""

    cpu_percent: float = 0.0
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0
    load_1: float = 0.0
    load_5: float = 0.0
    load_15: float = 0.0
    iowait_percent: float = 0.0
    disks: list[tuple[str, int, int]] = []
    """(mount point, used bytes, total bytes)"""
    disk_read_bytes_s: float = 0.0
    disk_write_bytes_s: float = 0.0
    net_in_bytes_s: float = 0.0
    net_out_bytes_s: float = 0.0
    interval_s: float = 0.0
    running: int = 0
    agent_rss_bytes: int = 0


class Reported(Reply, frozen=True, kw_only=True):
    """A report is on disk up to `seq`. `stale`: attempts that are no longer the agent's; stop and forget them.

    `log_offsets`: (task, attempt, bytes stored) for every log chunk of the report.
    """

    seq: int
    stale: list[tuple[int, int]] = []
    log_offsets: list[tuple[int, int, int]] = []


@request("agent.report", WORKERS, Reported)
class AgentReport(Request, frozen=True, kw_only=True):
    """Events in order, log chunks before the events that end their attempts. Sent again until it is answered.

    `held` (at every heartbeat): all attempts the agent has, so that both sides can agree.
    `progress`: (task, attempt, bytes done, bytes to do) of transfers under way.
    """

    seq: int
    events: list[AttemptEvent] = []
    logs: list[LogChunk] = []
    stats: Stats | None = None
    held: list[tuple[int, int]] | None = None
    progress: list[tuple[int, int, int, int]] = []
    seconds_left: float | None = None


@request("agent.goodbye", WORKERS)
class AgentGoodbye(Request, frozen=True, kw_only=True):
    """The agent ends: what it has not started goes back, what runs is lost. `reason` is shown in the worker's events."""

    reason: str = ""


@request("agent.answer", WORKERS)
class AgentAnswer(Request, frozen=True, kw_only=True):
    """The result of an `agent.order` that asked something (cache list, reachability): JSON-like plain data."""

    order_id: str
    result: Any = None
    error: str = ""


@request("server.key", ANYONE)
class ServerKey(Request, frozen=True, kw_only=True):
    """Reserved: the key is given on the key port (docs/protocol.md, "First contact")."""


class Assignment(Reply, frozen=True, kw_only=True):
    """An attempt for an agent to carry out."""

    task_id: int
    attempt: int
    spec: TaskSpec
    name: str = ""
    array_index: int | None = None
    item: str | None = None
    owner: str = ""
    priority: int = 0


@push("agent.offer")
class AgentOffer(Reply, frozen=True, kw_only=True):
    """Take these; each is answered by an `accept` or a `decline` event."""

    tasks: list[Assignment]


class Order(Reply, frozen=True, kw_only=True):
    """One thing to do.

    For an attempt: kill, stop, freeze, thaw, cancel, upload, forget. For the agent: drain, resume, quit, settings
    (value: concurrency, prefetch, seconds_left of its allocation), cache_list, cache_clear, check (value: a URI); the last three are answered by
    agent.answer with `order_id`.
    """

    kind: str
    task_id: int = 0
    attempt: int = 0
    reason: str = ""
    order_id: str = ""
    value: Any = None


@push("agent.orders")
class AgentOrders(Reply, frozen=True, kw_only=True):
    """Orders, to be carried out in this order; they may come twice."""

    orders: list[Order]


@push("agent.unknown")
class AgentUnknown(Reply, frozen=True, kw_only=True):
    """The server does not know this connection (it was restarted): register again."""
