"""Messages about who one is: login, tokens, users."""

from __future__ import annotations

from scitq.protocol.registry import ADMINS, ANYONE, USERS, WORKERS, Reply, Request, request


class Pong(Reply, frozen=True, kw_only=True):
    """The server's version, its clock (Unix ms), and who the caller is (empty when not logged in)."""

    version: str
    now_ms: int
    user: str = ""
    role: str = ""


@request("ping", ANYONE, Pong)
class Ping(Request, frozen=True, kw_only=True):
    """Is a scitq server there? A token, when given, is checked: a bad one is an error."""


class TokenGiven(Reply, frozen=True, kw_only=True):
    """A new token; `expires_ms` 0 means never."""

    token: str
    expires_ms: int
    user: str
    role: str


@request("login", ANYONE, TokenGiven)
class Login(Request, frozen=True, kw_only=True):
    """Exchange a name and a password for a token. `ttl_s` None: the server's default life."""

    user: str
    password: str
    ttl_s: float | None = None


@request("logout", USERS | WORKERS)
class Logout(Request, frozen=True, kw_only=True):
    """Revoke the token that this message carries, or all of its user's."""

    is_all: bool = False


@request("token.create", USERS, TokenGiven)
class TokenCreate(Request, frozen=True, kw_only=True):
    """A further token for the caller, or, for an admin, for `user` (`role` worker: a worker's token)."""

    name: str = ""
    ttl_s: float | None = None
    user: str | None = None
    is_worker: bool = False


class TokenRow(Reply, frozen=True, kw_only=True):
    """One live token."""

    id: str
    user: str
    role: str
    name: str
    created_ms: int
    expires_ms: int


class TokenRows(Reply, frozen=True, kw_only=True):
    """Tokens, newest first."""

    rows: list[TokenRow]


@request("token.list", USERS, TokenRows)
class TokenList(Request, frozen=True, kw_only=True):
    """The caller's live tokens; all users' for an admin who asks for all."""

    is_all: bool = False


@request("token.revoke", USERS)
class TokenRevoke(Request, frozen=True, kw_only=True):
    """End one token by its id: the caller's own, or anybody's for an admin."""

    id: str


class UserRow(Reply, frozen=True, kw_only=True):
    """One user."""

    id: int
    name: str
    role: str
    created_ms: int


class UserRows(Reply, frozen=True, kw_only=True):
    """Users by name."""

    rows: list[UserRow]


@request("user.list", USERS, UserRows)
class UserList(Request, frozen=True, kw_only=True):
    """All users."""


@request("user.create", ADMINS, UserRow)
class UserCreate(Request, frozen=True, kw_only=True):
    """A new user."""

    name: str
    password: str
    is_admin: bool = False


@request("user.update", USERS)
class UserUpdate(Request, frozen=True, kw_only=True):
    """Change a password (the caller's own, with the old one; anybody's for an admin) or, for an admin, a role."""

    name: str
    password: str | None = None
    old_password: str | None = None
    is_admin: bool | None = None


@request("user.delete", ADMINS)
class UserDelete(Request, frozen=True, kw_only=True):
    """Remove a user; live tokens die at once, tasks stay."""

    name: str
