"""Login, tokens, users."""

from __future__ import annotations

import re
from typing import Any

import apsw
import bcrypt

from scitq import __version__
from scitq.broker.context import Ctx, Later
from scitq.broker.dispatch import handles
from scitq.broker.store import users
from scitq.broker.store.users import User
from scitq.errors import ConflictError, ForbiddenError, NotFoundError, NotLoggedInError, UsageError
from scitq.protocol import tokens
from scitq.protocol.messages import session as m
from scitq.protocol.registry import Done, Role
from scitq.protocol.tokens import Identity
from scitq.util.clock import monotonic_s

_NAME = re.compile(r"[^\s/:\x00-\x1f]{1,64}")
_NOBODY = b"$2b$10$CwTycUXWue0Thq9StjUM0uJ8K9J7K9pK1H0Zc0m1vO9D7gWcQbV1K"
"""A hash that no password has; it is compared with when the user is unknown, so that the time tells nothing."""
_FREE_TRIES = 5
_MOST_DELAY_S = 30.0


def hash_password(password: str) -> str:
    """The bcrypt hash; passwords over bcrypt's 72 bytes are refused rather than cut."""
    data = password.encode()
    if not data:
        raise UsageError("an empty password is refused")
    if len(data) > 72 or b"\0" in data:
        raise UsageError("a password has at most 72 bytes and no NUL")
    return bcrypt.hashpw(data, bcrypt.gensalt(10)).decode()


def check_password(password: str, hashed: str) -> bool:
    """Whether the password has this hash; slow on purpose."""
    data = password.encode()
    try:
        return bcrypt.checkpw(data[:72], hashed.encode()) and len(data) <= 72
    except ValueError:
        return False


def _pong(ctx: Ctx) -> m.Pong:
    role = "" if ctx.who.role is Role.ANYONE else ctx.who.role.value
    return m.Pong(version=__version__, now_ms=ctx.now_ms, user=ctx.who.name, role=role)


@handles(m.Ping)
def ping(ctx: Ctx, _: m.Ping) -> m.Pong:
    """Answer who and when."""
    return _pong(ctx)


@handles(m.Login)
def login(ctx: Ctx, message: m.Login) -> Later[bool]:
    """Check the password in a thread, then give a token; wrong user and wrong password look and last the same."""
    user = users.by_name(ctx.tx, message.user)
    failures, until_s = ctx.broker.login_failures.get(message.user, (0, 0.0))
    if until_s > monotonic_s():
        raise NotLoggedInError(f"invalid credentials (too many failed logins as this user; wait {until_s - monotonic_s():.0f} s)")
    ttl_s = _life(ctx, message.ttl_s)
    hashed = user.password_hash if user else _NOBODY.decode()

    def then(ctx: Ctx, is_right: bool) -> m.TokenGiven:
        fresh = users.by_name(ctx.tx, message.user)
        if not is_right or fresh is None or fresh.password_hash != hashed:
            _count_failure(ctx, message.user, failures)
            raise NotLoggedInError("invalid credentials")
        ctx.after(lambda: _forget_failures(ctx, message.user))
        return give_token(ctx, fresh, ttl_s, "login")

    return Later(lambda: check_password(message.password, hashed) and user is not None, then)


def _count_failure(ctx: Ctx, name: str, failures: int) -> None:
    known = ctx.broker.login_failures
    if len(known) > 10_000:
        known.clear()
    over = failures + 1 - _FREE_TRIES
    known[name] = (failures + 1, monotonic_s() + min(_MOST_DELAY_S, 2.0 ** min(over, 6)) if over >= 0 else 0.0)


def _forget_failures(ctx: Ctx, name: str) -> None:
    ctx.broker.login_failures.pop(name, None)


def _life(ctx: Ctx, ttl_s: float | None) -> float:
    if ttl_s is not None and not 0 < ttl_s <= 3650 * 86400:
        raise UsageError("a token lives between a moment and ten years")
    return ctx.broker.token_ttl_s if ttl_s is None else ttl_s


def give_token(ctx: Ctx, user: User, ttl_s: float, name: str) -> m.TokenGiven:
    """A new live token of a user."""
    return _issue(ctx, Identity(user.id, user.name, Role(user.role), ctx.now_ms + round(ttl_s * 1000), tokens.new_token_id()), name)


def _issue(ctx: Ctx, identity: Identity, name: str) -> m.TokenGiven:
    users.insert_token(ctx.tx, identity, name, ctx.now_ms)
    ctx.after(lambda: ctx.broker.live_tokens.add(identity.token_id))
    text = tokens.issue(identity, ctx.broker.secrets.token_key)
    return m.TokenGiven(token=text, expires_ms=identity.expires_ms, user=identity.name, role=identity.role.value)


def worker_token(ctx: Ctx, name: str) -> m.TokenGiven:
    """A new token for one machine, without end; it is revoked with the machine."""
    return _issue(ctx, Identity(0, name, Role.WORKER, 0, tokens.new_token_id()), name)


@handles(m.Logout)
def logout(ctx: Ctx, message: m.Logout) -> Done:
    """Revoke the caller's token, or all of them; the one of scitq.yaml, which all workers share, is not ended so."""
    if not ctx.who.token_id:
        raise ForbiddenError("this is the worker_token of scitq.yaml; to end it, change it there and restart the server")
    if message.is_all and ctx.who.user_id:
        _revoked(ctx, users.revoke_all(ctx.tx, ctx.who.user_id))
    else:
        users.revoke(ctx.tx, ctx.who.token_id)
        _revoked(ctx, [ctx.who.token_id])
    return Done()


def _revoked(ctx: Ctx, ids: list[str]) -> None:
    ctx.after(lambda: ctx.broker.live_tokens.difference_update(ids))


@handles(m.TokenCreate)
def create_token(ctx: Ctx, message: m.TokenCreate) -> m.TokenGiven:
    """One more token: for oneself, or by an administrator for another user or a worker."""
    ttl_s = _life(ctx, message.ttl_s)
    if message.is_worker or (message.user is not None and message.user != ctx.who.name):
        if not ctx.is_admin:
            raise ForbiddenError("only an administrator makes tokens for others or for workers")
        if message.is_worker:
            expires_ms = ctx.now_ms + round(ttl_s * 1000)
            return _issue(ctx, Identity(0, message.name or "worker", Role.WORKER, expires_ms, tokens.new_token_id()), message.name)
    return give_token(ctx, _known(ctx, message.user or ctx.who.name), ttl_s, message.name)


@handles(m.TokenList)
def list_tokens(ctx: Ctx, message: m.TokenList) -> m.TokenRows:
    """The caller's live tokens, or everybody's for an administrator."""
    if message.is_all and not ctx.is_admin:
        raise ForbiddenError("only an administrator sees the tokens of others")
    found = users.live_tokens(ctx.tx, ctx.now_ms)
    return m.TokenRows(rows=[row for row in found if message.is_all or row.user == ctx.who.name])


@handles(m.TokenRevoke)
def revoke_token(ctx: Ctx, message: m.TokenRevoke) -> Done:
    """End one token."""
    found = next((row for row in users.live_tokens(ctx.tx, ctx.now_ms) if row.id == message.id), None)
    if found is None or (found.user != ctx.who.name and not ctx.is_admin):
        raise NotFoundError(f"there is no live token {message.id}")
    users.revoke(ctx.tx, message.id)
    _revoked(ctx, [message.id])
    return Done()


def _known(ctx: Ctx, name: str) -> User:
    user = users.by_name(ctx.tx, name)
    if user is None:
        raise NotFoundError(f"there is no user {name}")
    return user


@handles(m.UserList)
def list_users(ctx: Ctx, _: m.UserList) -> m.UserRows:
    """All users."""
    return m.UserRows(rows=users.listed(ctx.tx))


@handles(m.UserCreate)
def create_user(ctx: Ctx, message: m.UserCreate) -> Later[str]:
    """A new user; the hash is made in a thread."""
    if not _NAME.fullmatch(message.name):
        raise UsageError("a user's name has 1 to 64 characters, without blanks, '/' and ':'")

    def then(ctx: Ctx, hashed: str) -> m.UserRow:
        try:
            return users.insert(ctx.tx, message.name, hashed, "admin" if message.is_admin else "user", ctx.now_ms)
        except apsw.ConstraintError:
            raise ConflictError(f"there is a user {message.name} already") from None

    return Later(lambda: hash_password(message.password), then)


@handles(m.UserUpdate)
def update_user(ctx: Ctx, message: m.UserUpdate) -> Done | Later[Any]:
    """A new password or role; who changes the own password shows the old one."""
    user = _known(ctx, message.name)
    is_self = user.id == ctx.who.user_id
    if (message.is_admin is not None or not is_self) and not ctx.is_admin:
        raise ForbiddenError("only an administrator changes other users or roles")
    if user.is_from_config:
        raise ConflictError(f"{user.name} is set in scitq.yaml; change it there and restart the server")
    if message.is_admin is not None:
        users.set_role(ctx.tx, user.id, "admin" if message.is_admin else "user")
        _revoked(ctx, users.revoke_all(ctx.tx, user.id))
    if message.password is None:
        return Done()
    if is_self and not ctx.is_admin and message.old_password is None:
        raise UsageError("the old password is needed")
    password, old = message.password, message.old_password

    def work() -> str:
        if is_self and old is not None and not check_password(old, user.password_hash):
            raise NotLoggedInError("invalid credentials")
        return hash_password(password)

    def then(ctx: Ctx, hashed: str) -> Done:
        users.set_password(ctx.tx, user.id, hashed)
        others = [row.id for row in users.live_tokens(ctx.tx, ctx.now_ms) if row.user == user.name and row.id != ctx.who.token_id]
        for token_id in others:
            users.revoke(ctx.tx, token_id)
        _revoked(ctx, others)
        return Done()

    return Later(work, then)


@handles(m.UserDelete)
def delete_user(ctx: Ctx, message: m.UserDelete) -> Done:
    """Remove a user; its tokens die at once."""
    user = _known(ctx, message.name)
    if user.is_from_config or user.id == ctx.who.user_id:
        raise ConflictError(f"{user.name} is {'set in scitq.yaml' if user.is_from_config else 'you yourself'} and can't be deleted")
    ids = [row.id for row in users.live_tokens(ctx.tx, ctx.now_ms) if row.user == user.name]
    users.delete(ctx.tx, user.id)
    _revoked(ctx, ids)
    return Done()
