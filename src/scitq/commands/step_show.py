"""`scitq step show`."""

from __future__ import annotations

import argparse

from scitq.commands import groups
from scitq.commands.context import Context
from scitq.commands.render import local_time
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one."""
    groups.add_step(parser, "show")


def run(context: Context) -> int:
    """The step."""
    from scitq.protocol.messages.workflow import StepRow, StepShow

    row = context.api().call(StepShow(id=groups.step_id_of(context)), StepRow)
    out = context.out
    if out.is_json:
        out.json(row)
    elif out.is_quiet:
        out.ids([row.id])
    else:
        out.fields(
            [
                ("id", str(row.id)),
                ("name", row.name),
                ("workflow", f"{row.workflow_id} ({row.workflow})"),
                ("paused", "yes" if row.is_paused else "no"),
                ("retry", str(row.retries)),
                ("workers", str(row.workers)),
                ("created", local_time(row.created_ms)),
                ("tasks", groups.told(row.counts)),
            ]
        )
    return EXIT_OK
