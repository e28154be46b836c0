"""`scitq workflow show`."""

from __future__ import annotations

import argparse

from scitq.commands import groups
from scitq.commands.context import Context
from scitq.commands.render import local_time, optional
from scitq.commands.step_list import COLUMNS
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one."""
    groups.add_workflow(parser, verb=" to show")
    parser.add_argument("--template", action="store_true", help="print the file that the workflow was made from, and nothing else")


def run(context: Context) -> int:
    """The workflow, then its steps."""
    from scitq.protocol.messages.workflow import WorkflowDetails, WorkflowShow

    number, name = groups.workflow_of(context.options)
    found = context.api().call(WorkflowShow(id=number, name=name), WorkflowDetails)
    out, row = context.out, found.workflow
    if context.options.template:
        out.text(found.template.rstrip("\n"))
    elif out.is_json:
        out.json(found)
    elif out.is_quiet:
        out.ids([row.id])
    else:
        out.fields(
            [
                ("id", str(row.id)),
                ("name", row.name),
                ("status", row.status),
                ("user", row.user),
                ("created", local_time(row.created_ms)),
                ("maximum workers", optional(row.maximum_workers)),
                ("tasks", groups.told(row.counts)),
            ]
        )
        if found.steps:
            out.text("")
            out.rows(found.steps, [column for column in COLUMNS if column.name != "workflow"])
    return EXIT_OK
