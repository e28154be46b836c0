"""`scitq workflow update`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments, groups
from scitq.commands.context import Context
from scitq.errors import EXIT_OK, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one, and what to change."""
    groups.add_workflow(parser)
    parser.add_argument("--new-name", metavar="NAME", help="give it another name (default: as it is)")
    parser.add_argument(
        "--maximum-workers",
        metavar="N",
        type=arguments.natural,
        help="how many recruited workers may work for it; 0: any number (default: as it is)",
    )


def run(context: Context) -> int:
    """Change it."""
    from scitq.protocol.messages.workflow import WorkflowRow, WorkflowUpdate

    options = context.options
    if options.new_name is None and options.maximum_workers is None:
        raise UsageError("nothing to change: give --new-name or --maximum-workers")
    number, name = groups.workflow_of(options)
    message = WorkflowUpdate(id=number, name=name, new_name=options.new_name, maximum_workers=options.maximum_workers)
    row = context.api().call(message, WorkflowRow)
    if context.out.is_json:
        context.out.json(row)
    elif context.out.is_quiet:
        context.out.ids([row.id])
    else:
        context.out.text(f"workflow {row.id} is updated")
    return EXIT_OK
