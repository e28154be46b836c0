"""`scitq task wait`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments, selection, waiting
from scitq.commands.context import Context
from scitq.errors import UsageError

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
    is_last, ranges = selection.ranges_of(options.ids)
    if is_last:
        ranges = [*ranges, *((one, one, 1) for one in context.task_ids(["last"]))]
    if options.follow:
        if len(ranges) != 1 or ranges[0][0] != ranges[0][1] or options.timeout is not None or context.out.is_json:
            raise UsageError("--follow prints one task; give one --id, and neither --timeout nor --json")
        from scitq.commands import task_output

        context.options = argparse.Namespace(**vars(options) | {"ids": [str(ranges[0][0])], "stdout": False, "stderr": False, "tail": None})
        task_output.run(context)
    return waiting.wait(context, ranges, is_any=options.any, timeout_s=options.timeout)
