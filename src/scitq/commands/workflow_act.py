"""`scitq workflow finalize`, `suspend`, `resume` and `cancel`."""

from __future__ import annotations

import argparse

from scitq.commands import groups
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one."""
    groups.add_workflow(parser)


def run(context: Context) -> int:
    """Act on the workflow named by the options; the action is the command's last word."""
    from scitq.protocol.messages.workflow import GroupActed, WorkflowAct

    number, name = groups.workflow_of(context.options)
    message = WorkflowAct(action=context.command.path[-1], id=number, name=name)
    answer, changed, _ = groups.in_pieces(lambda: context.api().call(message, GroupActed))
    if context.out.is_json:
        context.out.json({"id": answer.id, "status": answer.status, "changed": changed})
    elif context.out.is_quiet:
        context.out.ids([answer.id])
    else:
        context.out.text(f"workflow {answer.id} is {answer.status}; {changed} task{'' if changed == 1 else 's'} changed")
    return EXIT_OK
