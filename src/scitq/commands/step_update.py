"""`scitq step update`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments, groups
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one, and what to change."""
    groups.add_step(parser, "change")
    parser.add_argument("--retry", metavar="N", type=arguments.natural, required=True, help="try tasks that come later up to N times more")


def run(context: Context) -> int:
    """Change it."""
    from scitq.protocol.messages.workflow import StepRow, StepUpdate

    row = context.api().call(StepUpdate(id=groups.step_id_of(context), retries=context.options.retry), StepRow)
    if context.out.is_json:
        context.out.json(row)
    elif context.out.is_quiet:
        context.out.ids([row.id])
    else:
        context.out.text(f"step {row.id} is updated")
    return EXIT_OK
