"""`scitq task edit`: change what no worker has yet."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks, and what of them."""
    arguments.add_task_ids(parser, "change")
    parser.add_argument("--priority", metavar="N", type=arguments.integer, help="greater goes first")
    parser.add_argument("--name", metavar="TEXT", help="a new name")
    parser.add_argument(
        "--label", metavar="NAME=VALUE", dest="labels", action="append", type=arguments.pair, help="labels, in place of the old"
    )
    parser.add_argument("--retry", metavar="N", type=arguments.natural, help="let it be tried again N times")


def run(context: Context) -> int:
    """All or none."""
    from scitq.protocol.messages.task import TaskEdit
    from scitq.protocol.registry import Done

    options = context.options
    if options.priority is None and options.name is None and options.labels is None and options.retry is None:
        raise UsageError("nothing to change; give --priority, --name, --label or --retry")
    ids = context.task_ids(options.ids)
    labels = None if options.labels is None else dict(options.labels)
    context.api().call(TaskEdit(ids=ids, priority=options.priority, name=options.name, labels=labels, retries=options.retry), Done)
    context.out.acted(ids)
    return EXIT_OK
