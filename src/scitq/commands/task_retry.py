"""`scitq task retry` (contract RTY-1 to RTY-6)."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.selection import pieces
from scitq.errors import EXIT_OK, ScitqError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks, and how often besides."""
    arguments.add_task_ids(parser, "retry")
    parser.add_argument("--retry", metavar="N", type=arguments.natural, help="let them be tried N more times if needed")
    parser.add_argument("--force", action="store_true", help="retry tasks that succeeded, too")


def run(context: Context) -> int:
    """Print the new ids."""
    from scitq.protocol.messages.task import TaskRetried, TaskRetry

    ids = context.task_ids(context.options.ids)
    made: list[int] = []
    try:
        for piece in pieces(ids):
            asked = TaskRetry(ids=piece, retries=context.options.retry, is_forced=context.options.force)
            made += context.api().call(asked, TaskRetried).ids
    except ScitqError:
        _show(context, ids, made)
        raise
    _show(context, ids, made)
    return EXIT_OK


def _show(context: Context, ids: list[int], made: list[int]) -> None:
    if context.out.is_json and made:
        context.out.json([{"id": new, "predecessor_id": old} for old, new in zip(ids, made, strict=False)])
    elif made:
        context.out.ids(made)
