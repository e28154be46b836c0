"""Options and steps that the commands on workflows and steps share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import UsageError

if TYPE_CHECKING:
    from scitq.protocol.messages.workflow import GroupActed

ORDER = "IWPACDORUVSFXZ"


def add_workflow(parser: argparse.ArgumentParser, *, verb: str = "", is_own: bool = True) -> None:
    """Which workflow: by id or by name. `is_own`: the command is about the workflow itself, so `--id` and `--name` mean it."""
    more_id, more_name = (["--id"], ["--name"]) if is_own else ([], [])
    parser.add_argument(
        "--workflow-id",
        "--workflow",
        *more_id,
        dest="workflow_id",
        metavar="ID",
        type=arguments.positive,
        help=f"the workflow{verb}, by id",
    )
    parser.add_argument("--workflow-name", *more_name, dest="workflow_name", metavar="NAME", help=f"the workflow{verb}, by name")


def workflow_of(options: argparse.Namespace, *, is_required: bool = True) -> tuple[int | None, str | None]:
    """The id and the name that were given; UsageError for both, or for none where one is required."""
    number, name = options.workflow_id, options.workflow_name
    if number is not None and name is not None:
        raise UsageError("give the workflow's id or its name, not both")
    if is_required and number is None and not name:
        raise UsageError("name the workflow: --workflow-id ID or --workflow-name NAME")
    return number, name


def add_step(parser: argparse.ArgumentParser, verb: str) -> None:
    """Which step: by id, or by name within a workflow."""
    parser.add_argument(
        "--step-id", "--step", "--id", dest="step_id", metavar="ID", type=arguments.positive, help=f"the step to {verb}, by id"
    )
    parser.add_argument("--name", metavar="NAME", help="the step, by name; then its workflow is needed too")
    add_workflow(parser, verb=" of a step that is given by name", is_own=False)


def step_id_of(context: Context) -> int:
    """The id of the step that the options name; asks the server when it is given by name."""
    options = context.options
    if options.step_id is not None:
        if options.name is not None:
            raise UsageError("give the step's id or its name, not both")
        return int(options.step_id)
    if not options.name:
        raise UsageError("name the step: --step-id ID, or --name NAME with --workflow-id or --workflow-name")
    from scitq.protocol.messages.workflow import StepRow, StepShow

    number, name = workflow_of(options)
    return context.api().call(StepShow(name=options.name, workflow_id=number, workflow_name=name), StepRow).id


def in_pieces(ask: Callable[[], GroupActed]) -> tuple[GroupActed, int, list[int]]:
    """Ask again until no task is left: the last answer, how many tasks were changed in all, and their new ids."""
    changed = 0
    ids: list[int] = []
    while True:
        answer = ask()
        changed += answer.changed
        ids += answer.ids
        if not answer.remaining or not answer.changed:
            return answer, changed, ids


def told(counts: dict[str, int]) -> str:
    """`S:10 F:1`, in the order of a task's life."""
    return " ".join(f"{letter}:{counts[letter]}" for letter in ORDER if counts.get(letter))
