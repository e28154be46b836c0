"""`scitq worker deploy` (contract DEP-1 to DEP-10)."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What machines, how many, and for what."""
    add = parser.add_argument
    add("--provider", metavar="NAME", required=True, help="provider and configuration, as azure.primary")
    add("--flavor", metavar="NAME", required=True, help="the kind of machine, as `scitq flavor list` names it")
    add("--region", metavar="NAME", default="", help="where (default: the provider's own default)")
    add("--count", metavar="N", type=arguments.positive, default=1, help="how many workers")
    add("--step", "--step-id", dest="step_id", metavar="ID", type=arguments.positive, help="the step that they serve")
    add("--concurrency", metavar="N", type=arguments.positive, default=1, help="tasks that each runs at once")
    add("--prefetch", metavar="N", type=arguments.natural, default=0, help="tasks that each prepares ahead")
    add("--time-limit", metavar="TIME", type=arguments.duration, help="end of the allocation, for providers that have one (slurm)")
    add("--dry-run", action="store_true", help="show what would be sent to the provider, and do nothing")


def run(context: Context) -> int:
    """Print the ids; the machines come later."""
    from scitq.protocol.messages.fleet import WorkerDeploy, WorkersDeployed

    options = context.options
    asked = WorkerDeploy(
        provider=options.provider,
        flavor=options.flavor,
        region=options.region,
        count=options.count,
        step_id=options.step_id,
        concurrency=options.concurrency,
        prefetch=options.prefetch,
        time_limit_s=options.time_limit,
        is_dry_run=options.dry_run,
    )
    made = context.api().call(asked, WorkersDeployed, waits_s=120.0 if options.dry_run else 0.0)
    if options.dry_run:
        if context.out.is_json:
            context.out.json(made)
        else:
            context.out.text(made.script.rstrip("\n"))
    else:
        context.out.acted(made.ids)
    return EXIT_OK
