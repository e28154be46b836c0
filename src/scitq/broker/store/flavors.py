"""The catalogue of flavors, what is set aside of it, providers' updates, and quotas."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from scitq.broker.recruit_state import Quota
from scitq.model.flavor import Flavor


class Listed(NamedTuple):
    """A flavor of the catalogue and what is known of its use."""

    flavor: Flavor
    is_disabled: bool
    failures: int
    aside_until_ms: int
    aside_reason: str


_COLUMNS = (
    "provider, region, name, cpus, mem_gib, disk_gb, gpus, gpu, gpumem_gib, eviction_percent, cost, longest_s,"
    " is_disabled, failures, aside_until_ms, aside_reason"
)


def listed(tx: apsw.Connection, provider: str | None = None) -> list[Listed]:
    """All flavors on offer, of one provider or of all, by name."""
    found = tx.execute(
        f"SELECT {_COLUMNS} FROM flavor WHERE is_offered AND (:provider IS NULL OR provider = :provider) ORDER BY provider, region, name",
        {"provider": provider},
    )
    return [
        Listed(
            Flavor(
                provider=row[0], region=row[1], name=row[2], cpus=row[3], mem_gib=row[4], disk_gb=row[5], gpus=row[6], gpu=row[7],
                gpumem_gib=row[8], eviction_percent=row[9], cost=row[10], longest_s=row[11],
            ), bool(row[12]), row[13], row[14], row[15],
        )
        for row in found
    ]  # fmt: skip


def replace(tx: apsw.Connection, provider: str, flavors: list[Flavor], now_ms: int) -> None:
    """The provider's catalogue is now this; what it no longer offers is kept unseen, with its failures."""
    tx.execute("UPDATE flavor SET is_offered = 0 WHERE provider = ?", (provider,))
    tx.executemany(
        "INSERT INTO flavor (provider, region, name, cpus, mem_gib, disk_gb, gpus, gpu, gpumem_gib, eviction_percent, cost,"
        " longest_s, updated_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (provider, region, name) DO UPDATE SET cpus = excluded.cpus, mem_gib = excluded.mem_gib, disk_gb = excluded.disk_gb,"
        " gpus = excluded.gpus, gpu = excluded.gpu, gpumem_gib = excluded.gpumem_gib, eviction_percent = excluded.eviction_percent,"
        " cost = excluded.cost, longest_s = excluded.longest_s, updated_ms = excluded.updated_ms, is_offered = 1",
        [
            (each.provider, each.region, each.name, each.cpus, each.mem_gib, each.disk_gb, each.gpus, each.gpu, each.gpumem_gib,
             each.eviction_percent, each.cost, each.longest_s, now_ms)
            for each in flavors
        ],
    )  # fmt: skip
    tx.execute(
        "INSERT INTO provider_state (name, updated_ms) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET updated_ms = excluded.updated_ms, error = ''",
        (provider, now_ms),
    )


def set_error(tx: apsw.Connection, provider: str, error: str) -> None:
    """An update failed, in the provider's words; the catalogue stays as it was."""
    tx.execute(
        "INSERT INTO provider_state (name, error) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET error = excluded.error", (provider, error)
    )


def states(tx: apsw.Connection) -> dict[str, tuple[int | None, str]]:
    """By provider: when its catalogue was read, and the error of the last try."""
    return {row[0]: (row[1], row[2]) for row in tx.execute("SELECT name, updated_ms, error FROM provider_state")}


def forget_others(tx: apsw.Connection, providers: list[str]) -> None:
    """Providers that are no longer configured offer nothing."""
    for row in tx.execute("SELECT DISTINCT provider FROM flavor WHERE is_offered").fetchall():
        if row[0] not in providers:
            tx.execute("UPDATE flavor SET is_offered = 0 WHERE provider = ?", (row[0],))


def set_disabled(tx: apsw.Connection, provider: str, region: str, name: str, *, is_disabled: bool) -> int:
    """Keep a flavor from use, or allow it again, in one region or all; how many rows that is."""
    tx.execute(
        "UPDATE flavor SET is_disabled = ? WHERE provider = ? AND name = ? AND (? = '' OR region = ?)",
        (int(is_disabled), provider, name, region, region),
    )
    return tx.changes()


def note_failure(tx: apsw.Connection, key: tuple[str, str, str]) -> int:
    """One more failure in a row of this flavor; how many that makes."""
    tx.execute("UPDATE flavor SET failures = failures + 1 WHERE provider = ? AND region = ? AND name = ?", key)
    row = tx.execute("SELECT failures FROM flavor WHERE provider = ? AND region = ? AND name = ?", key).fetchone()
    return int(row[0]) if row else 1


def set_aside(tx: apsw.Connection, key: tuple[str, str, str], until_ms: int, reason: str) -> None:
    """Recruiters leave the flavor alone until then."""
    tx.execute(
        "UPDATE flavor SET aside_until_ms = ?, aside_reason = ? WHERE provider = ? AND region = ? AND name = ?", (until_ms, reason, *key)
    )


def note_success(tx: apsw.Connection, key: tuple[str, str, str]) -> None:
    """A machine of this flavor was made."""
    tx.execute(
        "UPDATE flavor SET failures = 0, aside_until_ms = 0, aside_reason = '' WHERE provider = ? AND region = ? AND name = ? AND failures > 0",
        key,
    )


def quotas(tx: apsw.Connection) -> list[Quota]:
    """Limits that were set by `provider quota`."""
    found = tx.execute("SELECT provider, region, kind, most FROM quota ORDER BY provider, region, kind")
    return [Quota(provider=row[0], region=row[1], kind=row[2], most=row[3]) for row in found]


def set_quota(tx: apsw.Connection, quota: Quota) -> None:
    """One limit."""
    tx.execute(
        "INSERT INTO quota (provider, region, kind, most) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (provider, region, kind) DO UPDATE SET most = excluded.most",
        (quota.provider, quota.region, quota.kind, quota.most),
    )


def drop_quota(tx: apsw.Connection, provider: str, region: str, kind: str) -> None:
    """One limit less."""
    tx.execute("DELETE FROM quota WHERE provider = ? AND region = ? AND kind = ?", (provider, region, kind))
