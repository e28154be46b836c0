"""`scitq task show`: all that is known of a task."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import local_time, neutral, optional
from scitq.errors import EXIT_OK
from scitq.model.lifecycle import NAMES, TaskStatus
from scitq.util.units import figure, format_bytes, format_duration

if TYPE_CHECKING:
    from scitq.model.task import Use
    from scitq.protocol.messages.task import TaskDetails

MOST_AT_ONCE = 1000
EXIT_MEANINGS = {
    125: "the container could not be started",
    126: "the program can't be executed",
    127: "no such program",
    137: "killed (SIGKILL), perhaps by the kernel for want of memory",
    139: "crashed (SIGSEGV)",
    143: "ended by SIGTERM",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks."""
    arguments.add_task_ids(parser, "show")


def _list(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, (list, tuple)) else optional(values)


def _size(count: float | None) -> str:
    return "" if count is None else format_bytes(count)


def _use(use: Use | None) -> list[tuple[str, str]]:
    if use is None:
        return []
    peak = use.peak_memory_bytes
    return [
        ("cpu time", "" if use.cpu_s is None else format_duration(use.cpu_s)),
        ("peak memory", "not known, it ended too soon" if use.cpu_s is not None and not peak else _size(peak)),
        ("read", _size(use.read_bytes)),
        ("written", _size(use.written_bytes)),
        ("downloaded", _size(use.downloaded_bytes)),
        ("uploaded", _size(use.uploaded_bytes)),
    ]


def _progress(progress: dict[str, int]) -> str:
    if not progress:
        return ""
    done, to_do = progress["bytes_done"], progress["bytes_to_do"]
    percent = f" ({100 * done // to_do}%)" if to_do > 0 else ""
    return f"{format_bytes(done)} of {format_bytes(to_do)}{percent}"


def _exit(status: int | None, reason: str) -> str:
    if status is None:
        return ""
    # Where the reason is our own (a kill, a limit), what the number usually means would contradict it.
    meaning = EXIT_MEANINGS.get(status) if not reason or reason.startswith("exit status") else None
    return f"{status} ({meaning})" if meaning else str(status)


def _pairs(task: TaskDetails) -> list[tuple[str, str]]:
    row, spec = task.row, task.spec
    asked = [
        ("cpus", spec.cpus),
        ("mem GiB", spec.mem_gib),
        ("gpus", spec.gpus),
        ("disk GB", spec.disk_gb),
        *spec.requests.items(),
    ]
    return [
        ("id", str(row.id)),
        ("status", f"{row.status} ({NAMES[TaskStatus(row.status)]})"),
        ("transferred", _progress(task.progress)),
        ("reason", row.reason),
        ("exit status", _exit(row.exit_status, row.reason)),
        ("name", row.name),
        ("user", row.user),
        ("worker", optional(row.worker_id)),
        ("step", optional(row.step_id)),
        ("workflow", optional(row.workflow_id)),
        ("attempt", str(row.attempt)),
        ("retries left", str(task.retries_left) if task.retries_left else ""),
        ("retry of", optional(row.predecessor_id)),
        ("retried as", optional(row.successor_id)),
        ("chain", " -> ".join(map(str, task.chain)) if len(task.chain) > 1 else ""),
        ("array", "" if row.array_id is None else f"{row.array_id}, index {row.array_index}"),
        ("item", optional(task.item)),
        ("key", optional(task.key)),
        ("labels", ", ".join(f"{name}={value}" for name, value in row.labels.items())),
        ("priority", str(row.priority) if row.priority else ""),
        ("created", local_time(row.created_ms)),
        ("started", local_time(row.started_ms)),
        ("ended", local_time(row.ended_ms)),
        ("container", spec.container),
        ("shell", optional(spec.shell)),
        ("entrypoint", optional(spec.entrypoint)),
        ("command", spec.command),
        *(("resource", uri) for uri in spec.resources),
        *(("input", uri) for uri in spec.inputs),
        ("output", optional(spec.output)),
        ("publish", optional(spec.publish)),
        ("env", " ".join(f"{name}={shlex.quote(value)}" for name, value in spec.env.items())),
        ("asks for", ", ".join(f"{name} {figure(value)}" for name, value in asked if value)),
        ("time limit", "" if spec.time_limit_s is None else format_duration(spec.time_limit_s)),
        ("retry on", _list(spec.retry_on)),
        ("depends on", _list(task.depends_on)),
        ("after any", _list(task.after_any)),
        ("waited for by", _list(task.waited_by)),
        ("time in states", ", ".join(f"{letter} {format_duration(ms / 1000)}" for letter, ms in task.state_ms.items())),
        *_use(task.use),
        ("log", _size(task.log_bytes) if task.log_bytes else ""),
    ]


def run(context: Context) -> int:
    """JSON: a list of all that the server tells."""
    from scitq.protocol.messages.task import TasksDetails, TaskShow

    ids = context.task_ids(context.options.ids)
    found: list[TaskDetails] = []
    for start in range(0, len(ids), MOST_AT_ONCE):
        found += context.api().call(TaskShow(ids=ids[start : start + MOST_AT_ONCE]), TasksDetails).tasks
    out = context.out
    if out.is_json:
        out.json(found)
        return EXIT_OK
    if out.is_quiet:
        out.ids(task.row.id for task in found)
        return EXIT_OK
    for position, task in enumerate(found):
        if position:
            out.text("")
        out.fields(_pairs(task))
        out.text("history:")
        for change in task.changes:
            worker = "" if change.worker_id is None else f"  worker {change.worker_id}"
            why = f"  {neutral(change.reason)}" if change.reason else ""
            out.text(f"  {local_time(change.at_ms)}  {change.status}  attempt {change.attempt}{worker}{why}")
    return EXIT_OK
