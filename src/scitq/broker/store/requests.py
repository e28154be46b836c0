"""Answers of requests that must not be carried out twice, kept so that a repeated one gets the same answer."""

from __future__ import annotations

import apsw


def answer(tx: apsw.Connection, request_id: str, user_id: int) -> bytes | None:
    """The reply's body of a request that was carried out, or None."""
    row = tx.execute("SELECT reply FROM request WHERE id = ? AND user_id = ?", (request_id, user_id)).fetchone()
    return row[0] if row else None


def keep(tx: apsw.Connection, request_id: str, user_id: int, reply: bytes, now_ms: int) -> None:
    """Remember a reply, in the transaction that carried the request out."""
    tx.execute("INSERT OR REPLACE INTO request (id, user_id, at_ms, reply) VALUES (?, ?, ?, ?)", (request_id, user_id, now_ms, reply))


def drop_before(tx: apsw.Connection, at_ms: int) -> None:
    """Forget old ones."""
    tx.execute("DELETE FROM request WHERE at_ms < ?", (at_ms,))
