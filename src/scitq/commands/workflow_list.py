"""`scitq workflow list`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments, groups
from scitq.commands.context import Context
from scitq.commands.render import Column, local_time, optional
from scitq.errors import EXIT_OK

COLUMNS = (
    Column("id", lambda row: str(row.id), is_number=True),
    Column("status", lambda row: row.status),
    Column("name", lambda row: row.name),
    Column("user", lambda row: row.user),
    Column("created", lambda row: local_time(row.created_ms)),
    Column("steps", lambda row: str(row.steps), is_number=True),
    Column("max workers", lambda row: optional(row.maximum_workers), is_number=True),
    Column("tasks", lambda row: groups.told(row.counts)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Filters and pages."""
    parser.add_argument("--limit", metavar="N", type=arguments.natural, default=20, help="show at most N workflows; 0 means all")
    parser.add_argument(
        "--offset", metavar="N", type=arguments.natural, default=0, help="skip the first N workflows that the filters leave"
    )
    parser.add_argument("--name", metavar="TEXT", help="only workflows whose name contains TEXT; % in it stands for anything")
    parser.add_argument("--user", metavar="NAME", help="only workflows of this user")


def run(context: Context) -> int:
    """One page, newest first."""
    from scitq.protocol.messages.workflow import WorkflowList, WorkflowRows

    options = context.options
    asked = WorkflowList(limit=options.limit, offset=options.offset, name=options.name, user=options.user)
    context.out.rows(context.api().call(asked, WorkflowRows).rows, COLUMNS)
    return EXIT_OK
