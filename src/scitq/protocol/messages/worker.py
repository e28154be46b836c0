"""Messages about workers, as users send them."""

from __future__ import annotations

from typing import Any

from scitq.protocol.messages.agent import Hardware, Stats
from scitq.protocol.registry import USERS, Reply, Request, request


class WorkerRow(Reply, frozen=True, kw_only=True):
    """One worker. Status: installing, ready, draining, paused, offline, failed, deleting, deleted."""

    id: int
    name: str
    status: str
    concurrency: int
    prefetch: int
    addresses: list[str] = []
    flavor: str = ""
    provider: str = ""
    region: str = ""
    step_id: int | None = None
    host: str = ""
    hardware: Hardware | None = None
    runtimes: list[str] = []
    allows_bare: bool = True
    is_permanent: bool = False
    scope: str = "W"
    """Who may take this worker over when it is idle: W its workflow, G all (global), N nobody."""
    owner: str = ""
    reason: str = ""
    version: str = ""
    created_ms: int = 0
    seen_ms: int | None = None
    ends_ms: int | None = None
    running: int = 0
    held: int = 0
    machine: str = ""


class WorkerRows(Reply, frozen=True, kw_only=True):
    """Workers by id."""

    rows: list[WorkerRow]


@request("worker.list", USERS, WorkerRows)
class WorkerList(Request, frozen=True, kw_only=True):
    """Workers that are not deleted (all with `show_deleted`), or those named by `ids`."""

    ids: list[int] | None = None
    step_id: int | None = None
    show_deleted: bool = False


@request("worker.update", USERS)
class WorkerUpdate(Request, frozen=True, kw_only=True):
    """Change workers while they work; `step` 0 takes them out of their step."""

    ids: list[int]
    concurrency: int | None = None
    prefetch: int | None = None
    step_id: int | None = None
    is_permanent: bool | None = None
    scope: str | None = None
    name: str | None = None


@request("worker.act", USERS)
class WorkerAct(Request, frozen=True, kw_only=True):
    """One of: drain (no new tasks), resume, delete (running tasks are interrupted)."""

    ids: list[int]
    action: str


class WorkerStatsRow(Reply, frozen=True, kw_only=True):
    """A worker's latest figures and how old they are; None when it never sent any."""

    id: int
    name: str
    status: str
    stats: Stats | None = None
    age_ms: int | None = None


class WorkerStatsRows(Reply, frozen=True, kw_only=True):
    """In the order asked for."""

    rows: list[WorkerStatsRow]


@request("worker.stats", USERS, WorkerStatsRows)
class WorkerStats(Request, frozen=True, kw_only=True):
    """Live figures; an empty list means all workers."""

    ids: list[int]


class WorkerEventRow(Reply, frozen=True, kw_only=True):
    """One thing that happened to a worker."""

    at_ms: int
    worker_id: int
    kind: str
    detail: str


class WorkerEventRows(Reply, frozen=True, kw_only=True):
    """Newest first."""

    rows: list[WorkerEventRow]


@request("worker.events", USERS, WorkerEventRows)
class WorkerEvents(Request, frozen=True, kw_only=True):
    """What happened to one worker, or to all."""

    id: int | None = None
    limit: int = 50


class WorkerAnswer(Reply, frozen=True, kw_only=True):
    """What an agent answered to an order."""

    result: Any = None


@request("worker.ask", USERS, WorkerAnswer)
class WorkerAsk(Request, frozen=True, kw_only=True):
    """Have an agent do and answer: cache_list, cache_clear, check (value: a URI)."""

    id: int
    order: str
    value: Any = None
    at_most_s: float = 20.0
