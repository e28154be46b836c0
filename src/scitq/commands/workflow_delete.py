"""`scitq workflow delete`."""

from __future__ import annotations

import argparse

from scitq.commands import groups
from scitq.commands.context import Context
from scitq.errors import EXIT_OK
from scitq.util.units import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which one."""
    groups.add_workflow(parser)


def run(context: Context) -> int:
    """Delete it with its steps, tasks and logs."""
    from scitq.protocol.messages.workflow import GroupActed, WorkflowDelete, WorkflowDetails, WorkflowShow

    number, name = groups.workflow_of(context.options)
    if number is None:
        number = context.api().call(WorkflowShow(name=name), WorkflowDetails).workflow.id
    answer, changed, _ = groups.in_pieces(lambda: context.api().call(WorkflowDelete(id=number), GroupActed))
    if context.out.is_json:
        context.out.json({"id": answer.id, "deleted_tasks": changed})
    elif context.out.is_quiet:
        context.out.ids([answer.id])
    else:
        context.out.text(f"workflow {answer.id} is deleted, and {counted(changed, 'task')} with it")
    return EXIT_OK
