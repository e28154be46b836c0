"""`scitq worker events`: what happened to workers."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import Column, local_time
from scitq.errors import EXIT_OK

COLUMNS = (
    Column("at", lambda row: local_time(row.at_ms)),
    Column("worker", lambda row: str(row.worker_id), is_number=True),
    Column("event", lambda row: row.kind),
    Column("detail", lambda row: row.detail),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose, and how many."""
    parser.add_argument("--worker-id", "--id", metavar="ID", dest="worker_id", type=arguments.positive, help="only of this worker")
    parser.add_argument("--limit", metavar="N", type=arguments.natural, default=50, help="at most N; 0 means all")


def run(context: Context) -> int:
    """Newest first."""
    from scitq.protocol.messages.worker import WorkerEventRows, WorkerEvents

    asked = WorkerEvents(id=context.options.worker_id, limit=context.options.limit)
    context.out.rows(context.api().call(asked, WorkerEventRows).rows, COLUMNS, key="worker_id")
    return EXIT_OK
