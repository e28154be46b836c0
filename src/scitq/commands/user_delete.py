"""`scitq user delete`."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who."""
    parser.add_argument(
        "--user", "--name", dest="user", metavar="NAME", required=True, help="the user; tasks stay, live tokens die at once"
    )


def run(context: Context) -> int:
    """For administrators."""
    from scitq.protocol.messages.session import UserDelete
    from scitq.protocol.registry import Done

    context.api().call(UserDelete(name=context.options.user), Done)
    if context.out.is_json:
        context.out.json({"name": context.options.user})
    return EXIT_OK
