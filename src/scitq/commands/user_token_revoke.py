"""`scitq user token revoke`."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which."""
    parser.add_argument(
        "--id", metavar="ID", action="append", dest="ids", required=True, help="the token's id, as `user token list` shows it"
    )


def run(context: Context) -> int:
    """One after the other."""
    from scitq.protocol.messages.session import TokenRevoke
    from scitq.protocol.registry import Done

    for one in context.options.ids:
        context.api().call(TokenRevoke(id=one), Done)
    if context.out.is_json:
        context.out.json([{"id": one} for one in context.options.ids])
    return EXIT_OK
