"""`scitq logout`: end tokens."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One token or all."""
    parser.add_argument("--all", action="store_true", help="revoke all tokens of this user, not only the one in use")


def run(context: Context) -> int:
    """Revoke, and forget the session file."""
    from scitq.client import sessions
    from scitq.protocol.messages.session import Logout
    from scitq.protocol.registry import Done

    api = context.api()
    api.call(Logout(is_all=context.options.all), Done)
    if sessions.read(api.address) == api.token or context.options.all:
        sessions.remove(api.address)
    context.done("all your tokens are revoked" if context.options.all else "the token is revoked", all=context.options.all)
    return EXIT_OK
