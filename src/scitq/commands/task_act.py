"""`scitq task cancel | kill | stop | suspend | resume | upload`."""

from __future__ import annotations

import argparse

import msgspec

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


class Acted(msgspec.Struct, frozen=True):
    """A task and the status that it has now."""

    id: int
    status: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks, and why."""
    arguments.add_task_ids(parser, "act upon")
    parser.add_argument("--reason", metavar="TEXT", default="", help="shown with the task")


def run(context: Context) -> int:
    """All or none."""
    from scitq.protocol.messages.task import TaskAct, TaskActed

    ids = context.task_ids(context.options.ids)
    action = context.command.path[1]
    statuses = context.api().call(TaskAct(ids=ids, action=action, reason=context.options.reason), TaskActed).statuses
    acted = [Acted(one, status) for one, status in zip(ids, statuses, strict=True)]
    if context.out.is_json:
        context.out.json(acted)
    elif context.out.is_quiet:
        context.out.ids(ids)
    else:
        for one in acted:
            context.out.text(f"{one.id} {one.status}")
    return EXIT_OK
