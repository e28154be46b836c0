"""`scitq worker drain | resume | delete`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which workers."""
    arguments.add_worker_ids(parser, "act upon")


def run(context: Context) -> int:
    """All or none."""
    from scitq.protocol.messages.worker import WorkerAct
    from scitq.protocol.registry import Done

    ids = arguments.worker_ids(context.options)
    context.api().call(WorkerAct(ids=ids, action=context.command.path[1]), Done)
    context.out.acted(ids)
    return EXIT_OK
