"""`scitq step create`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments, groups
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its workflow, its name, its retries."""
    groups.add_workflow(parser, verb=" that it belongs to", is_own=False)
    parser.add_argument("--name", metavar="NAME", required=True, help="its name within the workflow")
    parser.add_argument(
        "--retry", metavar="N", type=arguments.natural, default=0, help="try each of its tasks up to N times more when it fails"
    )


def run(context: Context) -> int:
    """Print its id."""
    from scitq.protocol.messages.workflow import StepCreate, StepRow

    number, name = groups.workflow_of(context.options)
    message = StepCreate(name=context.options.name, workflow_id=number, workflow_name=name, retries=context.options.retry)
    row = context.api().call(message, StepRow)
    if context.out.is_json:
        context.out.json(row)
    else:
        context.out.text(str(row.id))
    return EXIT_OK
