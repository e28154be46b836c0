"""`scitq job retry | delete`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which."""
    parser.add_argument(
        "--job-id", "--id", dest="ids", metavar="ID", action="append", type=arguments.positive, required=True, help="the job"
    )


def run(context: Context) -> int:
    """All or none."""
    from scitq.protocol.messages.fleet import JobAct
    from scitq.protocol.registry import Done

    context.api().call(JobAct(ids=context.options.ids, action=context.command.path[1]), Done)
    context.out.acted(context.options.ids)
    return EXIT_OK
