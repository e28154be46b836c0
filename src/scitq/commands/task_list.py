"""`scitq task list` (contract, section 9)."""

from __future__ import annotations

import argparse
import re

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import Column, local_time, optional
from scitq.errors import EXIT_OK, UsageError
from scitq.model.lifecycle import NAMES

LETTERS = {status.value: name for status, name in NAMES.items()}
EPILOG = "status letters: " + ", ".join(f"{letter} {name}" for letter, name in LETTERS.items())

COLUMNS = {
    column.name: column
    for column in (
        Column("id", lambda row: str(row.id), is_number=True),
        Column("status", lambda row: row.status),
        Column("name", lambda row: row.name),
        Column("user", lambda row: row.user),
        Column("worker", lambda row: optional(row.worker_id), is_number=True),
        Column("step", lambda row: optional(row.step_id), is_number=True),
        Column("workflow", lambda row: optional(row.workflow_id), is_number=True),
        Column("exit", lambda row: optional(row.exit_status), is_number=True),
        Column("created", lambda row: local_time(row.created_ms)),
        Column("changed", lambda row: local_time(row.changed_ms)),
        Column("started", lambda row: local_time(row.started_ms)),
        Column("ended", lambda row: local_time(row.ended_ms)),
        Column("attempt", lambda row: str(row.attempt), is_number=True),
        Column("priority", lambda row: str(row.priority), is_number=True),
        Column("predecessor", lambda row: optional(row.predecessor_id), is_number=True),
        Column("successor", lambda row: optional(row.successor_id), is_number=True),
        Column("array", lambda row: optional(row.array_id), is_number=True),
        Column("index", lambda row: optional(row.array_index), is_number=True),
        Column("labels", lambda row: ",".join(f"{name}={value}" for name, value in row.labels.items())),
        Column("reason", lambda row: row.reason),
        Column("container", lambda row: row.container),
        Column("command", lambda row: row.command, may_be_cut=True),
    )
}
_USUAL = ("id", "status", "name", "worker", "exit", "created", "container", "command")


def _columns(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in COLUMNS:
            raise UsageError(f"{name!r} is no column; there are {', '.join(COLUMNS)}")
    return names


def _letters(text: str) -> str:
    letters = text.replace(",", "").upper()
    if not letters or any(letter not in LETTERS for letter in letters):
        wrong = next((letter for letter in letters if letter not in LETTERS), "")
        raise UsageError(f"{wrong!r} is no status; the letters are {', '.join(f'{letter} ({name})' for letter, name in LETTERS.items())}")
    return letters


def _since(text: str) -> float | int:
    """Seconds before now (a float), or a moment in Unix ms (an int): `2h`, `7d`, `2026-11-22`, `2026-11-22T14:30`, in local time."""
    if not re.match(r"\d{4}-", text):
        return arguments.duration(text)
    from datetime import datetime

    try:
        return int(datetime.fromisoformat(text.strip()).astimezone().timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{text!r} is no moment; write 2h, 7d, 2026-11-22 or 2026-11-22T14:30") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Filters, pages and columns."""
    add = parser.add_argument
    add("--limit", metavar="N", type=arguments.natural, default=20, help="show at most N tasks; 0 means all")
    add("--offset", metavar="N", type=arguments.natural, default=0, help="skip the first N tasks that the filters leave")
    add(
        "--status",
        metavar="LETTERS",
        type=arguments.checked(_letters),
        help="only tasks in one of these states, for example RF",
    )
    add(
        "--id",
        metavar="ID",
        dest="ids",
        action="append",
        help="only these: 7, or 1,4, or 3-9, or 3-99:2, or last, or - for the ids on stdin",
    )
    add("--worker-id", "--worker", metavar="ID", dest="worker_id", type=arguments.positive, help="only tasks that this worker has or had")
    add("--step-id", "--step", metavar="ID", dest="step_id", type=arguments.natural, help="only tasks of this step; 0: of none")
    add("--workflow-id", "--workflow", metavar="ID", dest="workflow_id", type=arguments.positive, help="only tasks of this workflow")
    add("--command", metavar="TEXT", help="only tasks whose command contains TEXT; % in it stands for anything")
    add("--name", metavar="TEXT", help="only tasks whose name contains TEXT")
    add("--label", metavar="NAME=VALUE", dest="labels", action="append", type=arguments.pair, help="only tasks with this label")
    add("--user", metavar="NAME", help="only tasks of this user")
    add(
        "--since",
        metavar="TIME",
        type=arguments.checked(_since),
        help="only tasks created in the last TIME, as 2h or 7d, or since then: 2026-11-22 or 2026-11-22T14:30",
    )
    add("--array", metavar="ID", dest="array_id", type=arguments.positive, help="only tasks of this array")
    add("--show-hidden", action="store_true", help="show earlier attempts, which were retried, too")
    add("--oldest-first", action="store_true", help="turn the order round")
    add(
        "--columns",
        metavar="A,B,…",
        type=arguments.checked(_columns),
        help=f"what to show (default: {','.join(_USUAL)}); there are {', '.join(COLUMNS)}",
    )


def run(context: Context) -> int:
    """One page, newest first."""
    from scitq.protocol.messages.task import TaskList, TaskRows

    options = context.options
    since_ms = options.since if isinstance(options.since, int) else None
    if isinstance(options.since, float):
        from scitq.protocol.messages.session import Ping, Pong

        since_ms = context.api().call(Ping(), Pong).now_ms - int(options.since * 1000)
    ids = None
    if options.ids:
        from scitq.commands.selection import merged, selected

        is_last, found = selected(options.ids)
        ids = merged(found)
        if is_last:
            ids = [*ids, *((one, one, 1) for one in context.task_ids(["last"]))]
    asked = TaskList(
        limit=options.limit,
        offset=options.offset,
        status=options.status or "",
        worker_id=options.worker_id,
        step_id=options.step_id or None,
        has_no_step=options.step_id == 0,
        workflow_id=options.workflow_id,
        command=options.command,
        name=options.name,
        labels=dict(options.labels or []),
        user=options.user,
        since_ms=since_ms,
        array_id=options.array_id,
        ids=ids,
        show_hidden=options.show_hidden,
        is_oldest_first=options.oldest_first,
    )
    rows = context.api().call(asked, TaskRows).rows
    names = options.columns
    if names is None:
        names = list(_USUAL)
        if options.show_hidden:
            names.insert(2, "successor")
    context.out.rows(rows, [COLUMNS[name] for name in names])
    return EXIT_OK
