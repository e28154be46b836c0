"""`scitq job list`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import Column, local_time, optional
from scitq.errors import EXIT_OK

COLUMNS = (
    Column("id", lambda row: str(row.id), is_number=True),
    Column("kind", lambda row: row.kind),
    Column("status", lambda row: row.status),
    Column("provider", lambda row: row.provider),
    Column("machine", lambda row: row.machine),
    Column("worker", lambda row: optional(row.worker_id), is_number=True),
    Column("tries", lambda row: str(row.tries), is_number=True),
    Column("created", lambda row: local_time(row.created_ms)),
    Column("ended", lambda row: local_time(row.ended_ms)),
    Column("error", lambda row: row.error),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which."""
    add = parser.add_argument
    add("--limit", metavar="N", type=arguments.natural, default=20, help="show at most N jobs; 0 means all")
    add("--status", choices=("queued", "running", "done", "failed", "dropped"), default="", help="only jobs in this state")
    add("--worker-id", metavar="ID", type=arguments.positive, help="only jobs about this worker")


def run(context: Context) -> int:
    """Newest first."""
    from scitq.protocol.messages.fleet import JobList, JobRows

    options = context.options
    rows = context.api().call(JobList(limit=options.limit, status=options.status, worker_id=options.worker_id), JobRows).rows
    context.out.rows(rows, COLUMNS)
    return EXIT_OK
