"""`scitq file check`: can the server, and a given worker, reach this URI?"""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import Column
from scitq.errors import EXIT_FAILED, EXIT_OK, ScitqError, UsageError


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of the server (worker_id is None) or of a worker."""

    where: str
    worker_id: int | None
    is_reachable: bool
    detail: str
    files: int = 0
    bytes: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What, and from where."""
    parser.add_argument("uri", metavar="URI", help="a file, a folder, a pattern, a bucket, or storage:// alone")
    arguments.add_worker_ids(parser, "ask too", is_required=False)


def run(context: Context) -> int:
    """One line for the server and one for each worker asked; exit 1 when one of them can't reach it.

    Addresses that only workers open are asked of the workers alone.
    """
    from scitq.model.uri import BUILT_IN
    from scitq.protocol.messages.file import FileCheck, FileChecked
    from scitq.protocol.messages.worker import WorkerAnswer, WorkerAsk

    options = context.options
    worker_ids = arguments.worker_ids(options)
    rows = []
    try:
        checked = context.api().call(FileCheck(uri=options.uri), FileChecked)
        rows.append(_row("server", None, {name: getattr(checked, name) for name in checked.__struct_fields__}))
    except UsageError as error:
        if options.uri.partition("://")[0] not in BUILT_IN:
            raise
        if not worker_ids:
            raise UsageError(f"{error.message}; only workers open such addresses: ask one with --worker-id") from None
    for worker_id in worker_ids:
        try:
            answer = context.api().call(
                WorkerAsk(id=worker_id, order="check", value=options.uri, at_most_s=40.0), WorkerAnswer, waits_s=40.0
            )
            rows.append(_row(f"worker {worker_id}", worker_id, dict(answer.result)))
        except ScitqError as error:
            rows.append(Row(where=f"worker {worker_id}", worker_id=worker_id, is_reachable=False, detail=error.message))
    columns = (
        Column("where", lambda row: row.where),
        Column("reachable", lambda row: "yes" if row.is_reachable else "no"),
        Column("files", lambda row: str(row.files or ""), is_number=True),
        Column("bytes", lambda row: str(row.bytes or ""), is_number=True),
        Column("detail", lambda row: row.detail),
    )
    context.out.rows(rows, columns, key="where")
    return EXIT_OK if all(row.is_reachable for row in rows) else EXIT_FAILED


def _row(where: str, worker_id: int | None, found: dict[str, Any]) -> Row:
    return Row(where=where, worker_id=worker_id, **found)
