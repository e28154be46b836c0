"""Typed calls to the server: a request goes out, its reply or its error comes back."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from scitq import errors
from scitq.client import link, sessions
from scitq.client.locate import Address, find_server
from scitq.protocol.envelope import read_body
from scitq.protocol.registry import Reply, Request, of_type

R = TypeVar("R", bound=Reply)

HOW_TO_LOG_IN = "not logged in; type this:  export SCITQ_TOKEN=$(scitq login)"
WAIT_PIECE_S = 20.0
"""A wait is asked for in pieces of so many seconds, each parked at the server."""
WAIT_PATIENCE_S = 300.0
"""How long the server may be away in the middle of a wait."""


def find_token(address: Address, token_file: str | None = None) -> str:
    """The token to show: of `token_file`, of $SCITQ_TOKEN, of this terminal session's file; NotLoggedInError when there is none."""
    if token_file:
        try:
            token = Path(token_file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise errors.UsageError(f"the token file {token_file} can't be read: {reason}") from None
        if not token:
            raise errors.NotLoggedInError(f"the token file {token_file} is empty")
        return token
    token = "".join(os.environ.get("SCITQ_TOKEN", "").split()) or (sessions.read(address) or "")
    if not token:
        raise errors.NotLoggedInError(HOW_TO_LOG_IN)
    return token


class Api:
    """A connection with somebody's token on it."""

    def __init__(self, address: Address, token: str) -> None:
        self.address = address
        self.token = token
        self.link = link.Link(address)

    def call(self, message: Request, reply: type[R], *, waits_s: float = 0.0, patience_s: float | None = None) -> R:
        """Send `message` and give its answer, of the type `reply`; raises the error that the server answers with.

        waits_s: how long the server may park the request before it answers.
        """
        declared = of_type(type(message))
        assert declared.reply is reply, f"{declared.kind} is answered by {declared.reply.__name__}"
        answer = self.link.request(declared.kind, self.token, message, reply_s=waits_s + link.REPLY_TIMEOUT_S, patience_s=patience_s)
        error = link.error_of(answer)
        if error is not None:
            raise errors.from_code(error.code, error.message, error.position)
        return read_body(answer.body, reply)

    def close(self) -> None:
        """End the connection."""
        self.link.close()

    def __enter__(self) -> Api:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def connect(server: str | None = None, token_file: str | None = None, *, needs_token: bool = True) -> Api:
    """A connection to the server meant by `server` and the environment; the token is looked for before the network is."""
    address = find_server(server)
    token = find_token(address, token_file) if needs_token else ""
    return Api(address, token)
