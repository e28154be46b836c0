"""HMAC-signed tokens: who, in which role, until when, and a revocable id."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

import msgspec

from scitq.errors import NotLoggedInError
from scitq.protocol.registry import Role
from scitq.util.clock import UnixMs

_PREFIX = "scitq1"


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """What a token says: user id (0 for workers), name, role, expiry in Unix ms (0: never) and the id to revoke it by."""

    user_id: int
    name: str
    role: Role
    expires_ms: int
    token_id: str


def new_token_id() -> str:
    """A fresh id for a token, unguessable."""
    return secrets.token_hex(12)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _sign(payload: str, key: bytes) -> str:
    return _text(hmac.new(key, f"{_PREFIX}.{payload}".encode(), hashlib.sha256).digest())


def issue(identity: Identity, key: bytes) -> str:
    """The token for `identity`: `scitq1.<payload>.<signature>`, without blanks."""
    payload = _text(msgspec.msgpack.encode(identity))
    return f"{_PREFIX}.{payload}.{_sign(payload, key)}"


def verify(token: str, key: bytes, now_ms: UnixMs) -> Identity:
    """The identity in a genuine token that has not expired; NotLoggedInError otherwise. Revocation is the caller's to check."""
    parts = token.split(".")
    if len(parts) != 3 or parts[0] != _PREFIX or not hmac.compare_digest(_sign(parts[1], key).encode(), parts[2].encode()):
        raise NotLoggedInError("the token is not one of this server; log in again: scitq login")
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        identity = msgspec.msgpack.decode(base64.urlsafe_b64decode(padded), type=Identity)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise NotLoggedInError("the token is damaged; log in again: scitq login") from None
    if identity.expires_ms and identity.expires_ms <= now_ms:
        raise NotLoggedInError("the token has expired; log in again: scitq login")
    return identity
