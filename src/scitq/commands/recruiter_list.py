"""`scitq recruiter list | show`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import Column, optional
from scitq.errors import EXIT_OK


def _slots(row: object) -> str:
    number = getattr(row, "concurrency", None)
    if number is not None:
        return str(number)
    needs = (("cpus_per_task", "cpus"), ("mem_per_task_gib", "GiB"), ("disk_per_task_gb", "GB"))
    return "+".join(f"{getattr(row, field):g} {unit}" for field, unit in needs if getattr(row, field)) + " a task"


COLUMNS = (
    Column("id", lambda row: str(row.id), is_number=True),
    Column("workflow", lambda row: optional(row.workflow_id), is_number=True),
    Column("step", lambda row: str(row.step_id), is_number=True),
    Column("rank", lambda row: str(row.rank), is_number=True),
    Column("workers", lambda row: str(row.workers), is_number=True),
    Column("most", lambda row: optional(row.max_workers), is_number=True),
    Column("concurrency", _slots),
    Column("prefetch", lambda row: str(row.prefetch) if row.prefetch_percent is None else f"{row.prefetch_percent} %", is_number=True),
    Column("rounds", lambda row: f"{row.rounds:g}", is_number=True),
    Column("timeout", lambda row: f"{row.timeout_s:g} s", is_number=True),
    Column("filter", lambda row: row.filter),
    Column("error", lambda row: row.last_error),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which."""
    add = parser.add_argument
    add("--recruiter-id", "--id", dest="ids", metavar="ID", action="append", type=arguments.positive, help="only these")
    add("--step-id", "--step", dest="step_id", metavar="ID", type=arguments.positive, help="only those of this step")
    add("--workflow-id", "--workflow", dest="workflow_id", metavar="ID", type=arguments.positive, help="only those of this workflow")


def run(context: Context) -> int:
    """By step and rank."""
    from scitq.protocol.messages.fleet import RecruiterList, RecruiterRows

    options = context.options
    asked = RecruiterList(step_id=options.step_id, workflow_id=options.workflow_id, ids=options.ids)
    context.out.rows(context.api().call(asked, RecruiterRows).rows, COLUMNS)
    return EXIT_OK
