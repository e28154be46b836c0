"""`scitq worker list`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import Column, local_time, optional
from scitq.errors import EXIT_OK, UsageError

COLUMNS = {
    column.name: column
    for column in (
        Column("id", lambda row: str(row.id), is_number=True),
        Column("name", lambda row: row.name),
        Column("status", lambda row: row.status),
        Column("concurrency", lambda row: str(row.concurrency), is_number=True),
        Column("prefetch", lambda row: str(row.prefetch), is_number=True),
        Column("running", lambda row: str(row.running), is_number=True),
        Column("addresses", lambda row: ",".join(row.addresses)),
        Column("flavor", lambda row: row.flavor),
        Column("provider", lambda row: row.provider),
        Column("region", lambda row: row.region),
        Column("step", lambda row: optional(row.step_id), is_number=True),
        Column("host", lambda row: row.host),
        Column("held", lambda row: str(row.held), is_number=True),
        Column("runtimes", lambda row: ",".join(row.runtimes)),
        Column("scope", lambda row: row.scope),
        Column("permanent", lambda row: "yes" if row.is_permanent else "no"),
        Column("owner", lambda row: row.owner),
        Column("version", lambda row: row.version),
        Column("machine", lambda row: row.machine),
        Column("created", lambda row: local_time(row.created_ms)),
        Column("seen", lambda row: local_time(row.seen_ms)),
        Column("ends", lambda row: local_time(row.ends_ms)),
        Column("reason", lambda row: row.reason),
    )
}
USUAL = ("id", "name", "status", "concurrency", "prefetch", "running", "addresses", "flavor", "provider", "region", "step")


def _columns(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in COLUMNS:
            raise UsageError(f"{name!r} is no column; there are {', '.join(COLUMNS)}")
    return names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Filters and columns."""
    arguments.add_worker_ids(parser, "list", is_required=False)
    parser.add_argument("--step-id", "--step", dest="step_id", metavar="ID", type=arguments.positive, help="only workers of this step")
    parser.add_argument("--show-deleted", action="store_true", help="show deleted workers too")
    shown = f"what to show (default: {','.join(USUAL)}); there are {', '.join(COLUMNS)}"
    parser.add_argument("--columns", metavar="A,B,…", type=arguments.checked(_columns), help=shown)


def run(context: Context) -> int:
    """By id."""
    from scitq.protocol.messages.worker import WorkerList, WorkerRows

    options = context.options
    ids = arguments.worker_ids(options) or None
    rows = context.api().call(WorkerList(ids=ids, step_id=options.step_id, show_deleted=options.show_deleted), WorkerRows).rows
    context.out.rows(rows, [COLUMNS[name] for name in options.columns or USUAL])
    return EXIT_OK
