"""`scitq worker stats`: live use of workers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import Column
from scitq.errors import EXIT_OK
from scitq.util.units import format_bytes, format_duration

if TYPE_CHECKING:
    from scitq.protocol.messages.agent import Stats
    from scitq.protocol.messages.worker import WorkerStatsRow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which workers."""
    arguments.add_worker_ids(parser, "look at", is_required=False)


def _figure(show: Callable[[Stats], str]) -> Callable[[WorkerStatsRow], str]:
    return lambda row: "-" if row.stats is None else show(row.stats)


COLUMNS = (
    Column("id", lambda row: str(row.id), is_number=True),
    Column("name", lambda row: row.name),
    Column("status", lambda row: row.status),
    Column("running", _figure(lambda s: str(s.running)), is_number=True),
    Column("cpu", _figure(lambda s: f"{s.cpu_percent:.0f}%"), is_number=True),
    Column("memory", _figure(lambda s: f"{format_bytes(s.memory_used_bytes)}/{format_bytes(s.memory_total_bytes)}")),
    Column("load", _figure(lambda s: f"{s.load_1:.2f} {s.load_5:.2f} {s.load_15:.2f}")),
    Column("iowait", _figure(lambda s: f"{s.iowait_percent:.0f}%"), is_number=True),
    Column("disk", _figure(lambda s: " ".join(f"{place} {format_bytes(used)}/{format_bytes(total)}" for place, used, total in s.disks))),
    Column("disk read/write", _figure(lambda s: f"{format_bytes(s.disk_read_bytes_s)}/s {format_bytes(s.disk_write_bytes_s)}/s")),
    Column("net in/out", _figure(lambda s: f"{format_bytes(s.net_in_bytes_s)}/s {format_bytes(s.net_out_bytes_s)}/s")),
    Column("age", lambda row: "-" if row.age_ms is None else format_duration(row.age_ms / 1000), is_number=True),
)


def run(context: Context) -> int:
    """In the order asked for."""
    from scitq.protocol.messages.worker import WorkerStats, WorkerStatsRows

    rows = context.api().call(WorkerStats(ids=arguments.worker_ids(context.options)), WorkerStatsRows).rows
    context.out.rows(rows, COLUMNS)
    return EXIT_OK
