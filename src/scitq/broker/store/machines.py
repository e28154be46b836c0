"""Machines that the server had made, by the names that it chose; stored before anything is asked of a provider."""

from __future__ import annotations

import secrets
from typing import NamedTuple

import apsw
import msgspec

from scitq.model.flavor import Flavor


class StoredMachine(NamedTuple):
    """A machine. `is_wanted`: the server still wants it; `is_deleted`: the provider has confirmed its end."""

    name: str
    worker_id: int
    provider: str
    flavor: Flavor
    provider_id: str
    time_limit_s: float | None
    made_ms: int | None
    begun_ms: int | None
    is_wanted: bool
    is_deleted: bool
    misses: int


_COLUMNS = "name, worker_id, provider, flavor, provider_id, time_limit_s, made_ms, begun_ms, is_wanted, is_deleted, misses"


def _machine(row: tuple[object, ...]) -> StoredMachine:
    values = list(row)
    values[3] = msgspec.json.decode(str(row[3]), type=Flavor)
    values[8], values[9] = bool(row[8]), bool(row[9])
    return StoredMachine(*values)  # type: ignore[arg-type] # the columns are in this order


def mark(tx: apsw.Connection) -> str:
    """The prefix of all names that this server gives, chosen once for its database."""
    row = tx.execute("SELECT value FROM fleet_fact WHERE name = 'mark'").fetchone()
    if row is None:
        value = f"scitq-{secrets.token_hex(4)}-"
        tx.execute("INSERT INTO fleet_fact (name, value) VALUES ('mark', ?)", (value,))
        return value
    return str(row[0])


def insert(tx: apsw.Connection, name: str, worker_id: int, flavor: Flavor, time_limit_s: float | None) -> None:
    """A machine to be made."""
    tx.execute(
        "INSERT INTO machine (name, worker_id, provider, flavor, time_limit_s) VALUES (?, ?, ?, ?, ?)",
        (name, worker_id, flavor.provider, msgspec.json.encode(flavor).decode(), time_limit_s),
    )


def get(tx: apsw.Connection, name: str) -> StoredMachine | None:
    """The machine, or None."""
    row = tx.execute(f"SELECT {_COLUMNS} FROM machine WHERE name = ?", (name,)).fetchone()
    return _machine(row) if row else None


def live(tx: apsw.Connection, provider: str | None = None) -> list[StoredMachine]:
    """Those whose end is not confirmed, of one provider or of all."""
    found = tx.execute(
        f"SELECT {_COLUMNS} FROM machine WHERE is_deleted = 0 AND (:provider IS NULL OR provider = :provider)", {"provider": provider}
    )
    return [_machine(row) for row in found]


def set_made(tx: apsw.Connection, name: str, provider_id: str, now_ms: int, *, has_begun: bool) -> None:
    """The provider has taken the order; `has_begun`: it is no longer in a queue."""
    tx.execute(
        "UPDATE machine SET provider_id = :id, made_ms = coalesce(made_ms, :now),"
        " begun_ms = CASE WHEN :begun THEN coalesce(begun_ms, :now) ELSE begun_ms END, misses = 0 WHERE name = :name",
        {"id": provider_id, "now": now_ms, "begun": has_begun, "name": name},
    )


def set_misses(tx: apsw.Connection, name: str, misses: int) -> None:
    """How often in a row the provider did not show it."""
    tx.execute("UPDATE machine SET misses = ? WHERE name = ?", (misses, name))


def set_wanted(tx: apsw.Connection, name: str, *, is_wanted: bool) -> None:
    """Whether the server wants it; wanting it anew makes it a machine to be made."""
    tx.execute(
        "UPDATE machine SET is_wanted = :wanted, is_deleted = CASE WHEN :wanted THEN 0 ELSE is_deleted END,"
        " made_ms = CASE WHEN :wanted THEN NULL ELSE made_ms END, begun_ms = CASE WHEN :wanted THEN NULL ELSE begun_ms END WHERE name = :name",
        {"wanted": is_wanted, "name": name},
    )


def set_deleted(tx: apsw.Connection, name: str) -> None:
    """The provider has confirmed its end."""
    tx.execute("UPDATE machine SET is_deleted = 1, is_wanted = 0 WHERE name = ?", (name,))


def failed_and_gone(tx: apsw.Connection) -> list[int]:
    """Recruited workers that failed and of which nothing is left at the provider."""
    found = tx.execute(
        "SELECT worker.id FROM worker JOIN machine ON machine.worker_id = worker.id"
        " WHERE worker.status = 'failed' AND worker.status <> 'deleted' AND worker.recruiter_id IS NOT NULL AND machine.is_deleted"
    )
    return [int(row[0]) for row in found]
