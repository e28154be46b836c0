"""`scitq recruiter update`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments, recruiter_create
from scitq.commands.context import Context
from scitq.errors import EXIT_OK, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which, and what to change."""
    parser.add_argument("--recruiter-id", "--id", dest="id", metavar="ID", type=arguments.positive, required=True, help="the recruiter")
    recruiter_create.add_options(parser, is_new=False)


def run(context: Context) -> int:
    """What is not named stays."""
    from scitq.protocol.messages.fleet import RecruiterUpdate
    from scitq.protocol.registry import Done

    values = recruiter_create.given(context.options)
    if not values:
        raise UsageError("nothing to change was named")
    context.api().call(RecruiterUpdate(id=context.options.id, **values), Done)
    context.out.acted([context.options.id])
    return EXIT_OK
