"""`scitq workflow wait`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments, groups
from scitq.commands.context import Context
from scitq.commands.progress import Progress
from scitq.errors import EXIT_OK, EXIT_TASK_FAILED, EXIT_TIMED_OUT
from scitq.util import clock

EPILOG = """A workflow is over when all its tasks have ended, or when those that have not wait for tasks that failed.
exit status: 0 all succeeded, 10 not all did, 124 the time was up."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one, and how long."""
    groups.add_workflow(parser)
    parser.add_argument("--timeout", metavar="TIME", type=arguments.duration, help="give up after TIME, as 90s or 2h (default: never)")


def run(context: Context) -> int:
    """Wait for the workflow named by the options."""
    number, name = groups.workflow_of(context.options)
    return wait(context, number, name, context.options.timeout)


def wait(context: Context, number: int | None, name: str | None, timeout_s: float | None, *, is_silent: bool = False) -> int:
    """Wait until the workflow is over; the exit status tells how it went. `is_silent`: print nothing on stdout."""
    from scitq.client.api import WAIT_PATIENCE_S, WAIT_PIECE_S
    from scitq.protocol.messages.workflow import WorkflowWait, WorkflowWaited

    deadline = None if timeout_s is None else clock.monotonic_s() + timeout_s
    bar = Progress("workflow", is_wanted=not context.out.is_quiet)
    counts: dict[str, int] = {}
    is_first = True
    try:
        while True:
            left = WAIT_PIECE_S if deadline is None else max(0.0, min(WAIT_PIECE_S, deadline - clock.monotonic_s()))
            if left <= 0 and not is_first:
                context.note(f"timed out; {groups.told(counts)}")
                return EXIT_TIMED_OUT
            asked = WorkflowWait(id=number, name=name, at_most_s=left, unless_counts=counts if bar.is_on else {})
            answer = context.api().call(asked, WorkflowWaited, waits_s=left, patience_s=WAIT_PATIENCE_S)
            counts, is_first = answer.counts, False
            bar.show(sum(counts.get(letter, 0) for letter in "SFX"), sum(counts.values()), groups.told(counts))
            if answer.is_over:
                break
    finally:
        bar.end()
    if context.out.is_json and not is_silent:
        context.out.json(answer)
    if answer.status in ("succeeded", "empty"):
        return EXIT_OK
    context.note(f"the workflow is {answer.status}: {groups.told(counts)}")
    return EXIT_TASK_FAILED
