"""`scitq step stats`: what the tasks of steps took."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from scitq.commands import arguments, groups
from scitq.commands.context import Context
from scitq.commands.render import Column
from scitq.errors import EXIT_OK
from scitq.util.units import format_bytes, format_duration

if TYPE_CHECKING:
    from scitq.protocol.messages.workflow import Spread, StepStats

EPILOG = """Times go from the start of a task's command to the end of its upload, as least / mean / most."""


def _times(spread: Spread) -> str:
    if not spread.count:
        return ""
    return " / ".join(format_duration(value) for value in (spread.least, spread.mean, spread.most))


def _memory(row: StepStats) -> str:
    found = row.memory_bytes
    return f"{format_bytes(found.mean)} / {format_bytes(found.most)}" if found.count else ""


COLUMNS = (
    Column("step", lambda row: str(row.id) if row.id else "", is_number=True),
    Column("name", lambda row: row.name),
    Column("tasks", lambda row: groups.told(row.counts)),
    Column("retried", lambda row: str(row.retried), is_number=True),
    Column("succeeded in", lambda row: _times(row.succeeded_s)),
    Column("failed in", lambda row: _times(row.failed_s)),
    Column("cpu", lambda row: "" if row.cpu_percent is None else f"{row.cpu_percent:g}%", is_number=True),
    Column("memory mean / most", _memory),
    Column("downloaded", lambda row: format_bytes(row.downloaded_bytes), is_number=True),
    Column("uploaded", lambda row: format_bytes(row.uploaded_bytes), is_number=True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which steps."""
    parser.add_argument(
        "--step-id",
        "--step",
        "--id",
        dest="step_ids",
        metavar="ID",
        action="append",
        type=arguments.positive,
        help="the steps to show; all when neither steps nor a workflow are given",
    )
    groups.add_workflow(parser, verb=" whose steps to show", is_own=False)
    parser.add_argument("--totals", action="store_true", help="add a line for all of them together")


def run(context: Context) -> int:
    """One line for each step."""
    from scitq.protocol.messages.workflow import StepStatsAsk, StepStatsRows

    options = context.options
    number, name = groups.workflow_of(options, is_required=False)
    asked = StepStatsAsk(ids=options.step_ids or [], workflow_id=number, workflow_name=name, with_totals=options.totals)
    context.out.rows(context.api().call(asked, StepStatsRows).rows, COLUMNS)
    return EXIT_OK
