"""The one registry of messages: each kind with its type, the roles that may send it and what answers it."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

import msgspec

from scitq.errors import ProtocolError


class Role(StrEnum):
    """Who sends a message. ANYONE needs no token."""

    ANYONE = "anyone"
    USER = "user"
    ADMIN = "admin"
    WORKER = "worker"


USERS = frozenset({Role.USER, Role.ADMIN})
ADMINS = frozenset({Role.ADMIN})
WORKERS = frozenset({Role.WORKER})
ANYONE = frozenset({Role.ANYONE})


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The root of all messages that ask for an answer."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The root of all answers and pushes; unknown fields are let be, so that a newer server can add some."""


class Done(Reply, frozen=True, kw_only=True):
    """The answer when there is nothing to say but that it is done and on disk."""


class MessageKind(NamedTuple):
    """One declared kind of request."""

    kind: str
    message: type[Request]
    roles: frozenset[Role]
    reply: type[Reply]
    since: int


_by_kind: dict[str, MessageKind] = {}
_by_type: dict[type[Request], MessageKind] = {}
_pushes: dict[str, type[Reply]] = {}
R = TypeVar("R", bound=type[Request])
P = TypeVar("P", bound=type[Reply])


def request(kind: str, roles: frozenset[Role], reply: type[Reply] = Done, since: int = 1) -> Callable[[R], R]:
    """Declare a request: its name on the wire, the roles that may send it, and the type of its answer."""

    def declare(message: R) -> R:
        if kind in _by_kind:
            raise ValueError(f"the message kind {kind} is declared twice")
        entry = MessageKind(kind, message, roles, reply, since)
        _by_kind[kind] = entry
        _by_type[message] = entry
        return message

    return declare


def push(kind: str) -> Callable[[P], P]:
    """Declare a message that the server sends unasked."""

    def declare(message: P) -> P:
        _pushes[kind] = message
        return message

    return declare


def of_kind(kind: str) -> MessageKind:
    """The declaration of `kind`; ProtocolError for what was never declared."""
    found = _by_kind.get(kind)
    if found is None:
        raise ProtocolError(f"the message kind {kind[:60]!r} is not known here")
    return found


def of_type(message: type[Request]) -> MessageKind:
    """The declaration of a request's type."""
    return _by_type[message]


def push_type(kind: str) -> type[Reply] | None:
    """The type of a push, or None when `kind` is none."""
    return _pushes.get(kind)


def push_kind(message: type[Reply]) -> str:
    """The name on the wire of a push."""
    return next(kind for kind, declared in _pushes.items() if declared is message)


def all_kinds() -> list[MessageKind]:
    """Every declared request, by name."""
    return [_by_kind[kind] for kind in sorted(_by_kind)]


def all_pushes() -> dict[str, Any]:
    """Every declared push by name."""
    return dict(_pushes)
