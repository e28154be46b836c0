"""`scitq step retry`, `pause` and `resume`."""

from __future__ import annotations

import argparse

from scitq.commands import arguments, groups
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one; for a retry, how often."""
    groups.add_step(parser, "act on")
    if parser.prog.endswith(" retry"):
        parser.add_argument(
            "--retry", metavar="N", type=arguments.natural, help="try each up to N times more by itself (default: as often as it had left)"
        )


def run(context: Context) -> int:
    """Act on the step named by the options; the action is the command's last word."""
    from scitq.protocol.messages.workflow import GroupActed, StepAct

    action = context.command.path[-1]
    retries = context.options.retry if action == "retry" else None
    message = StepAct(id=groups.step_id_of(context), action=action, retries=retries)
    answer, changed, ids = groups.in_pieces(lambda: context.api().call(message, GroupActed))
    out = context.out
    if out.is_json:
        out.json({"id": answer.id, "status": answer.status, "changed": changed, "ids": ids})
    elif action == "retry":
        out.ids(ids)
    elif out.is_quiet:
        out.ids([answer.id])
    else:
        out.text(f"step {answer.id} is {answer.status}")
    return EXIT_OK
