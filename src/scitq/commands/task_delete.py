"""`scitq task delete`: remove ended tasks."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks."""
    arguments.add_task_ids(parser, "delete")


def run(context: Context) -> int:
    """All or none."""
    from scitq.protocol.messages.task import TaskDelete
    from scitq.protocol.registry import Done

    ids = context.task_ids(context.options.ids)
    context.api().call(TaskDelete(ids=ids), Done)
    context.out.acted(ids)
    return EXIT_OK
