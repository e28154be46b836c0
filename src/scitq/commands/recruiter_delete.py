"""`scitq recruiter delete`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which."""
    parser.add_argument(
        "--recruiter-id", "--id", dest="ids", metavar="ID", action="append", type=arguments.positive, required=True, help="the recruiter"
    )


def run(context: Context) -> int:
    """All or none; their workers stay until they idle."""
    from scitq.protocol.messages.fleet import RecruiterDelete
    from scitq.protocol.registry import Done

    context.api().call(RecruiterDelete(ids=context.options.ids), Done)
    context.out.acted(context.options.ids)
    return EXIT_OK
