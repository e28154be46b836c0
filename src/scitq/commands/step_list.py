"""`scitq step list`."""

from __future__ import annotations

import argparse

from scitq.commands import groups
from scitq.commands.context import Context
from scitq.commands.render import Column, local_time
from scitq.errors import EXIT_OK

COLUMNS = (
    Column("id", lambda row: str(row.id), is_number=True),
    Column("name", lambda row: row.name),
    Column("workflow", lambda row: f"{row.workflow_id} {row.workflow}"),
    Column("paused", lambda row: "yes" if row.is_paused else "no"),
    Column("retry", lambda row: str(row.retries), is_number=True),
    Column("workers", lambda row: str(row.workers), is_number=True),
    Column("created", lambda row: local_time(row.created_ms)),
    Column("tasks", lambda row: groups.told(row.counts)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of which workflow."""
    groups.add_workflow(parser, verb=" whose steps to list", is_own=False)


def run(context: Context) -> int:
    """Steps by id."""
    from scitq.protocol.messages.workflow import StepList, StepRows

    number, name = groups.workflow_of(context.options, is_required=False)
    context.out.rows(context.api().call(StepList(workflow_id=number, workflow_name=name), StepRows).rows, COLUMNS)
    return EXIT_OK
