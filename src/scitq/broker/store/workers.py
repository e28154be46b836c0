"""Workers and what happened to them."""

from __future__ import annotations

from typing import Any, NamedTuple

import apsw
import msgspec

from scitq.protocol.messages.agent import AgentRegister, Hardware
from scitq.protocol.messages.worker import WorkerEventRow


class Worker(NamedTuple):
    """One worker as it is stored."""

    id: int
    uid: str | None
    machine: str | None
    name: str
    status: str
    wanted: str
    concurrency: int
    prefetch: int
    step_id: int | None
    owner_id: int | None
    provider: str
    region: str
    flavor: str
    recruiter_id: int | None
    scope: str
    is_permanent: bool
    host: str
    addresses: list[str]
    hardware: Hardware | None
    runtimes: list[str]
    allows_bare: bool
    reason: str
    version: str
    created_ms: int
    seen_ms: int | None
    ends_ms: int | None
    worked_ms: int | None
    failures: int


_COLUMNS = ", ".join(Worker._fields)


def _worker(row: Any) -> Worker:  # noqa: ANN401 - a row of APSW
    values = dict(zip(Worker._fields, row, strict=True))
    for name in ("addresses", "runtimes"):
        values[name] = msgspec.json.decode(values[name])
    values["hardware"] = msgspec.json.decode(values["hardware"], type=Hardware) if values["hardware"] else None
    for name in ("is_permanent", "allows_bare"):
        values[name] = bool(values[name])
    return Worker(**values)


def get(tx: apsw.Connection, worker_id: int) -> Worker | None:
    """The worker, or None."""
    row = tx.execute(f"SELECT {_COLUMNS} FROM worker WHERE id = ?", (worker_id,)).fetchone()
    return _worker(row) if row else None


def by_uid(tx: apsw.Connection, uid: str) -> Worker | None:
    """The worker that an agent's lasting id belongs to."""
    row = tx.execute(f"SELECT {_COLUMNS} FROM worker WHERE uid = ?", (uid,)).fetchone()
    return _worker(row) if row else None


def by_machine(tx: apsw.Connection, machine: str) -> Worker | None:
    """The worker for which the server chose this machine name."""
    row = tx.execute(f"SELECT {_COLUMNS} FROM worker WHERE machine = ?", (machine,)).fetchone()
    return _worker(row) if row else None


def listed(tx: apsw.Connection, *, show_deleted: bool = False) -> list[Worker]:
    """Workers by id; deleted ones only when asked."""
    where = "1" if show_deleted else "status <> 'deleted'"
    return [_worker(row) for row in tx.execute(f"SELECT {_COLUMNS} FROM worker WHERE {where} ORDER BY id")]


def next_id(tx: apsw.Connection) -> int:
    """The id that the next worker will have; ids are never used again."""
    return int(tx.execute("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'worker'), 0) + 1").get)


def insert_machine(
    tx: apsw.Connection, *, machine: str, name: str, provider: str, region: str, flavor: str, concurrency: int, prefetch: int,
    step_id: int | None, owner_id: int | None, recruiter_id: int | None, now_ms: int,
) -> int:  # fmt: skip
    """A worker whose machine is yet to be made, under a name that the server chose; status installing. Its id."""
    tx.execute(
        "INSERT INTO worker (machine, name, status, provider, region, flavor, concurrency, prefetch, step_id, owner_id, recruiter_id, created_ms)"
        " VALUES (?, ?, 'installing', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (machine, name, provider, region, flavor, concurrency, prefetch, step_id, owner_id, recruiter_id, now_ms),
    )
    return tx.last_insert_rowid()


def register(
    tx: apsw.Connection, worker_id: int | None, message: AgentRegister, *, ends_ms: int | None, step_id: int | None, now_ms: int
) -> int:
    """Store what an agent says of itself, in a new row or in that of `worker_id`; status becomes what is wanted. Its id."""
    values = {
        "uid": message.uid, "name": message.name, "host": message.host, "now": now_ms, "ends": ends_ms, "version": message.version,
        "addresses": msgspec.json.encode(message.addresses).decode(), "hardware": msgspec.json.encode(message.hardware).decode(),
        "runtimes": msgspec.json.encode(message.runtimes).decode(), "bare": int(message.allows_bare), "id": worker_id,
        "provider": message.provider or "local.local", "region": message.region or "local", "flavor": message.flavor or "local",
        "concurrency": message.concurrency, "prefetch": message.prefetch, "step": step_id,
    }  # fmt: skip
    if worker_id is None:
        tx.execute(
            "INSERT INTO worker (uid, name, status, concurrency, prefetch, provider, region, flavor, host, addresses, hardware, runtimes,"
            " allows_bare, version, created_ms, seen_ms, ends_ms, step_id, is_permanent)"
            " VALUES (:uid, :name, 'ready', coalesce(:concurrency, 1), coalesce(:prefetch, 0), :provider, :region, :flavor, :host, :addresses,"
            " :hardware, :runtimes, :bare, :version, :now, :now, :ends, :step, 1)",
            values,
        )
        return tx.last_insert_rowid()
    tx.execute(
        "UPDATE worker SET uid = :uid, status = wanted, host = :host, addresses = :addresses, hardware = :hardware, runtimes = :runtimes,"
        " allows_bare = :bare, version = :version, seen_ms = :now, ends_ms = :ends, reason = '',"
        " concurrency = coalesce(:concurrency, concurrency), prefetch = coalesce(:prefetch, prefetch) WHERE id = :id",
        values,
    )
    return worker_id


def set_status(tx: apsw.Connection, worker_id: int, status: str, reason: str = "") -> None:
    """Where a worker stands, and why."""
    tx.execute("UPDATE worker SET status = ?, reason = ? WHERE id = ?", (status, reason, worker_id))


def set_wanted(tx: apsw.Connection, worker_id: int, wanted: str, reason: str = "") -> None:
    """Whether a worker shall get tasks: ready, draining (by a person) or paused (set aside after failures)."""
    tx.execute(
        "UPDATE worker SET wanted = :wanted, reason = :reason,"
        " status = CASE WHEN status IN ('ready', 'draining', 'paused') THEN :wanted ELSE status END WHERE id = :id",
        {"wanted": wanted, "reason": reason, "id": worker_id},
    )


def update(tx: apsw.Connection, worker_id: int, changes: dict[str, Any]) -> None:
    """Set some of concurrency, prefetch, step_id, is_permanent, scope, name, failures, seen_ms, worked_ms, ends_ms, machine, uid."""
    allowed = {"concurrency", "prefetch", "step_id", "is_permanent", "scope", "name", "failures", "seen_ms", "worked_ms", "ends_ms",
               "machine", "uid", "recruiter_id"}  # fmt: skip
    if not changes or set(changes) - allowed:
        raise ValueError(f"no such columns: {set(changes) - allowed}")
    assignments = ", ".join(f"{name} = :{name}" for name in changes)
    tx.execute(f"UPDATE worker SET {assignments} WHERE id = :id", {**changes, "id": worker_id})


def record(tx: apsw.Connection, worker_id: int, kind: str, detail: str, now_ms: int) -> None:
    """One line of the worker's history."""
    tx.execute("INSERT INTO worker_event (worker_id, at_ms, kind, detail) VALUES (?, ?, ?, ?)", (worker_id, now_ms, kind, detail))


def events(tx: apsw.Connection, worker_id: int | None, limit: int) -> list[WorkerEventRow]:
    """Newest first, of one worker or of all."""
    found = tx.execute(
        "SELECT at_ms, worker_id, kind, detail FROM worker_event WHERE :id IS NULL OR worker_id = :id ORDER BY id DESC LIMIT :limit",
        {"id": worker_id, "limit": limit or -1},
    )
    return [WorkerEventRow(at_ms=row[0], worker_id=row[1], kind=row[2], detail=row[3]) for row in found]
