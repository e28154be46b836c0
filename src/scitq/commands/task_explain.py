"""`scitq task explain`: why a task is not running."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks."""
    arguments.add_task_ids(parser, "explain")


def run(context: Context) -> int:
    """The weightiest reason first."""
    from scitq.protocol.messages.task import TaskExplain, TaskExplained

    found = [context.api().call(TaskExplain(id=one), TaskExplained) for one in context.task_ids(context.options.ids)]
    if context.out.is_json:
        context.out.json(found)
    elif context.out.is_quiet:
        context.out.ids(explained.id for explained in found)
    else:
        for explained in found:
            for reason in explained.reasons:
                context.out.text(f"{explained.id} {explained.status}: {reason}")
    return EXIT_OK
