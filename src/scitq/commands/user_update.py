"""`scitq user update`: an administrator or not."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who, and which role."""
    parser.add_argument("--user", "--name", dest="user", metavar="NAME", required=True, help="the user")
    parser.add_argument("--admin", choices=("yes", "no"), required=True, help="whether to be an administrator; acts on live tokens at once")


def run(context: Context) -> int:
    """For administrators."""
    from scitq.protocol.messages.session import UserUpdate
    from scitq.protocol.registry import Done

    context.api().call(UserUpdate(name=context.options.user, is_admin=context.options.admin == "yes"), Done)
    if context.out.is_json:
        context.out.json({"name": context.options.user, "is_admin": context.options.admin == "yes"})
    return EXIT_OK
