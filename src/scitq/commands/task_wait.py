"""`scitq task wait`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments, selection, waiting
from scitq.commands.context import Context
from scitq.errors import UsageError
from scitq.util import clock

EPILOG = "exit status: 0 when all that ended succeeded, 10 when one did not, 124 when the timeout came first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks, all or any, and how long."""
    arguments.add_task_ids(parser, "wait for")
    parser.add_argument("--any", action="store_true", help="until one of them has ended")
    parser.add_argument("--timeout", metavar="TIME", type=arguments.duration_or_zero, help="give up after so long, as 90s or 2h")
    parser.add_argument("--follow", action="store_true", help="print the output of the task meanwhile (for one task)")


def run(context: Context) -> int:
    """A progress line on a terminal, silence in cron."""
    options = context.options
    is_last, ranges = selection.selected(options.ids)
    if is_last:
        ranges = [*ranges, *((one, one, 1) for one in context.task_ids(["last"]))]
    if len(ranges) > waiting.MOST_RANGES:
        ranges = selection.merged(ranges)
    if options.follow:
        if len(ranges) != 1 or ranges[0][0] != ranges[0][1] or context.out.is_json:
            raise UsageError("--follow prints the output of one task; give one --id, and no --json")
        from scitq.commands import task_output

        context.options = argparse.Namespace(**vars(options) | {"stdout": False, "stderr": False, "tail": None})
        deadline_s = None if options.timeout is None else clock.monotonic_s() + options.timeout
        task_output.print_one(context, ranges[0][0], deadline_s)
        left_s = None if deadline_s is None else max(0.0, deadline_s - clock.monotonic_s())
        return waiting.wait(context, ranges, timeout_s=left_s)
    return waiting.wait(context, ranges, is_any=options.any, timeout_s=options.timeout)
