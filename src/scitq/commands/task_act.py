"""`scitq task cancel | kill | stop | suspend | resume | upload`."""

from __future__ import annotations

import argparse

import msgspec

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.selection import pieces
from scitq.errors import EXIT_OK, ScitqError


class Acted(msgspec.Struct, frozen=True):
    """A task and the status that it has now."""

    id: int
    status: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks, and why."""
    arguments.add_task_ids(parser, "act upon")
    parser.add_argument("--reason", metavar="TEXT", default="", help="shown with the task")


def run(context: Context) -> int:
    """All or none of each piece; when a later piece is refused, what was done before it is shown."""
    from scitq.protocol.messages.task import TaskAct, TaskActed

    ids = context.task_ids(context.options.ids)
    action, reason = context.command.path[1], context.options.reason
    acted: list[Acted] = []
    try:
        for piece in pieces(ids):
            statuses = context.api().call(TaskAct(ids=piece, action=action, reason=reason), TaskActed).statuses
            acted += [Acted(one, status) for one, status in zip(piece, statuses, strict=True)]
    except ScitqError:
        _show(context, acted)
        raise
    _show(context, acted)
    return EXIT_OK


def _show(context: Context, acted: list[Acted]) -> None:
    if not acted:
        return
    if context.out.is_json:
        context.out.json(acted)
    elif context.out.is_quiet:
        context.out.ids([one.id for one in acted])
    else:
        for one in acted:
            context.out.text(f"{one.id} {one.status}")
