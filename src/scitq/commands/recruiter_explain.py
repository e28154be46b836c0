"""`scitq recruiter explain`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which."""
    parser.add_argument("--recruiter-id", "--id", dest="id", metavar="ID", type=arguments.positive, required=True, help="the recruiter")


def run(context: Context) -> int:
    """What it does now, and why."""
    from scitq.protocol.messages.fleet import RecruiterExplain, RecruiterExplained

    found = context.api().call(RecruiterExplain(id=context.options.id), RecruiterExplained)
    if context.out.is_json:
        context.out.json(found)
    elif context.out.is_quiet:
        context.out.ids([context.options.id])
    else:
        for reason in found.reasons:
            context.out.text(reason)
    return EXIT_OK
