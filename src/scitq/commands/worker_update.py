"""`scitq worker update`: change workers while they work."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which workers, and what of them."""
    arguments.add_worker_ids(parser, "change")
    add = parser.add_argument
    add("--concurrency", metavar="N", type=arguments.natural, help="tasks at once; lowering it interrupts none (default: as it is)")
    add("--prefetch", metavar="N", type=arguments.natural, help="tasks prepared ahead (default: as it is)")
    add(
        "--step-id",
        "--step",
        dest="step_id",
        metavar="ID",
        type=arguments.natural,
        help="the step to serve from now on; 0: none (default: as it is)",
    )
    add("--permanent", choices=("yes", "no"), help="yes: never released for being idle (default: as it is)")
    add(
        "--scope",
        choices=("W", "G", "N"),
        help="who may take it over when it is idle: its workflow, all (global), nobody (default: as it is)",
    )
    add("--name", metavar="TEXT", help="a new name (default: as it is)")


def run(context: Context) -> int:
    """All or none."""
    from scitq.protocol.messages.worker import WorkerUpdate
    from scitq.protocol.registry import Done

    options = context.options
    names = ("concurrency", "prefetch", "step_id", "permanent", "scope", "name")
    if all(getattr(options, name) is None for name in names):
        raise UsageError("nothing to change; give --concurrency, --prefetch, --step-id, --permanent, --scope or --name")
    ids = arguments.worker_ids(options)
    asked = WorkerUpdate(
        ids=ids,
        concurrency=options.concurrency,
        prefetch=options.prefetch,
        step_id=options.step_id,
        is_permanent=None if options.permanent is None else options.permanent == "yes",
        scope=options.scope,
        name=options.name,
    )
    context.api().call(asked, Done)
    context.out.acted(ids)
    return EXIT_OK
