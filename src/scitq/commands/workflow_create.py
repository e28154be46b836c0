"""`scitq workflow create`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK

EPILOG = """A new workflow is open: its tasks stay inactive (I) until `scitq workflow finalize`.
To make a whole workflow from a file, use `scitq workflow run`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its name and limit."""
    parser.add_argument("--name", metavar="NAME", required=True, help="its name; you can't have two of one name")
    parser.add_argument(
        "--maximum-workers",
        metavar="N",
        type=arguments.positive,
        help="how many recruited workers may work for it at once (default: any number)",
    )


def run(context: Context) -> int:
    """Print its id."""
    from scitq.protocol.messages.workflow import WorkflowCreate, WorkflowRow

    options = context.options
    row = context.api().call(WorkflowCreate(name=options.name, maximum_workers=options.maximum_workers), WorkflowRow)
    if context.out.is_json:
        context.out.json(row)
    else:
        context.out.text(str(row.id))
    return EXIT_OK
