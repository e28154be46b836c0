"""Users and live tokens."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from scitq.model.task import UserId
from scitq.protocol.messages.session import TokenRow, UserRow
from scitq.protocol.tokens import Identity
from scitq.util.clock import UnixMs


class User(NamedTuple):
    """One user with the hash of the password."""

    id: UserId
    name: str
    password_hash: str
    role: str
    is_from_config: bool


def by_name(tx: apsw.Connection, name: str) -> User | None:
    """The user of that name, or None."""
    row = tx.execute("SELECT id, name, password_hash, role, is_from_config FROM user WHERE name = ?", (name,)).fetchone()
    return User(UserId(row[0]), row[1], row[2], row[3], bool(row[4])) if row else None


def names(tx: apsw.Connection) -> dict[int, str]:
    """Every user's name by id."""
    return dict(tx.execute("SELECT id, name FROM user"))


def listed(tx: apsw.Connection) -> list[UserRow]:
    """All users by name."""
    found = tx.execute("SELECT id, name, role, created_ms FROM user ORDER BY name")
    return [UserRow(id=row[0], name=row[1], role=row[2], created_ms=row[3]) for row in found]


def insert(tx: apsw.Connection, name: str, password_hash: str, role: str, now_ms: UnixMs, *, is_from_config: bool = False) -> UserRow:
    """A new user; apsw.ConstraintError when the name is taken."""
    tx.execute(
        "INSERT INTO user (name, password_hash, role, created_ms, is_from_config) VALUES (?, ?, ?, ?, ?)",
        (name, password_hash, role, now_ms, int(is_from_config)),
    )
    return UserRow(id=tx.last_insert_rowid(), name=name, role=role, created_ms=now_ms)


def set_password(tx: apsw.Connection, user_id: int, password_hash: str) -> None:
    """Replace the hash."""
    tx.execute("UPDATE user SET password_hash = ? WHERE id = ?", (password_hash, user_id))


def set_role(tx: apsw.Connection, user_id: int, role: str, *, is_from_config: bool | None = None) -> None:
    """Make a user an admin or an ordinary one."""
    tx.execute(
        "UPDATE user SET role = ?, is_from_config = coalesce(?, is_from_config) WHERE id = ?",
        (role, None if is_from_config is None else int(is_from_config), user_id),
    )


def delete(tx: apsw.Connection, user_id: int) -> None:
    """Remove a user and all its tokens."""
    tx.execute("DELETE FROM token WHERE user_id = ?", (user_id,))
    tx.execute("DELETE FROM user WHERE id = ?", (user_id,))


def insert_token(tx: apsw.Connection, identity: Identity, name: str, now_ms: UnixMs) -> None:
    """Keep a token's id, which makes it live."""
    tx.execute(
        "INSERT INTO token (id, user_id, user_name, role, name, created_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (identity.token_id, identity.user_id, identity.name, identity.role.value, name, now_ms, identity.expires_ms),
    )


def live_tokens(tx: apsw.Connection, now_ms: UnixMs) -> list[TokenRow]:
    """Tokens that are neither revoked nor expired, newest first."""
    found = tx.execute(
        "SELECT id, user_name, role, name, created_ms, expires_ms FROM token WHERE expires_ms = 0 OR expires_ms > ?"
        " ORDER BY created_ms DESC, rowid DESC",
        (now_ms,),
    )
    return [TokenRow(id=r[0], user=r[1], role=r[2], name=r[3], created_ms=r[4], expires_ms=r[5]) for r in found]


def revoke(tx: apsw.Connection, token_id: str) -> bool:
    """End one token; whether it was live."""
    tx.execute("DELETE FROM token WHERE id = ?", (token_id,))
    return bool(tx.changes())


def revoke_all(tx: apsw.Connection, user_id: int) -> list[str]:
    """End all tokens of a user; their ids."""
    return [row[0] for row in tx.execute("DELETE FROM token WHERE user_id = ? RETURNING id", (user_id,))]


def drop_expired(tx: apsw.Connection, now_ms: UnixMs) -> None:
    """Forget tokens that have expired."""
    tx.execute("DELETE FROM token WHERE expires_ms > 0 AND expires_ms <= ?", (now_ms,))
