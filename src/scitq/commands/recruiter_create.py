"""`scitq recruiter create | update`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from scitq.commands import arguments, groups
from scitq.commands.context import Context
from scitq.commands.flavor_list import filter_text
from scitq.errors import EXIT_OK, UsageError

EPILOG = """A recruiter brings workers to a step: so many that the step's open tasks fit into `--rounds` rounds. Idle workers come first, then
the cheapest flavor that passes the filter, the quotas and what a task needs. Filters: see `scitq flavor list --help`."""
_FIELDS = ("filter", "rank", "concurrency", "cpus_per_task", "mem_per_task_gib", "disk_per_task_gb", "concurrency_min", "concurrency_max",
           "prefetch", "prefetch_percent", "rounds", "max_workers", "timeout_s")  # fmt: skip


def add_options(parser: argparse.ArgumentParser, *, is_new: bool) -> None:
    """What both create and update take; what is not named has its default when created, and stays as it is when updated."""

    def add(flag: str, metavar: str, kind: Callable[[str], Any], text: str, default: str = "none", dest: str | None = None) -> None:
        told = f"{text} (default: {default if is_new else 'as it is'})"
        parser.add_argument(flag, metavar=metavar, type=kind, help=told, dest=dest or flag.removeprefix("--").replace("-", "_"))

    add("--filter", "FILTER", arguments.checked(filter_text), "flavors that may be used, as cpu>=8:mem>10")
    add("--rank", "N", arguments.natural, "recruiters of a step are asked by rank, 1 first", "1")
    add("--concurrency", "N", arguments.positive, "tasks that each worker runs at once", "1")
    add("--cpus-per-task", "N", arguments.number, "adapt the concurrency to the flavor: CPUs of one task")
    add("--mem-per-task", "GIB", arguments.gib, "the same: memory of one task", dest="mem_per_task_gib")
    add("--disk-per-task", "GB", arguments.gb, "the same: disk of one task", dest="disk_per_task_gb")
    add("--concurrency-min", "N", arguments.positive, "with an adapted concurrency: no flavor that fits less", "1")
    add("--concurrency-max", "N", arguments.positive, "with an adapted concurrency: never more, however large the flavor")
    add("--prefetch", "N", arguments.natural, "tasks that each worker prepares ahead", "0")
    add("--prefetch-percent", "N", arguments.natural, "the same, as a part of the concurrency")
    add("--rounds", "N", arguments.number, "rounds in which the open tasks shall be done", "1")
    add("--max-workers", "N", arguments.natural, "never more workers than this at a time; 0: none", "any number")
    add("--timeout", "TIME", arguments.duration_or_zero, "deploy only after so long without an idle one", "0s", dest="timeout_s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The step, and the rules."""
    groups.add_step(parser, "recruit for")
    add_options(parser, is_new=True)


def given(options: argparse.Namespace) -> dict[str, Any]:
    """What was typed, by the message's field names."""
    found = {name: getattr(options, name) for name in _FIELDS if getattr(options, name) is not None}
    adapts = any(name in found for name in ("cpus_per_task", "mem_per_task_gib", "disk_per_task_gb"))
    if adapts and "concurrency" in found:
        raise UsageError("give either --concurrency or what a task needs (--cpus-per-task, …), not both")
    if "prefetch" in found and "prefetch_percent" in found:
        raise UsageError("give either --prefetch or --prefetch-percent, not both")
    return found


def run(context: Context) -> int:
    """Print its id."""
    from scitq.protocol.messages.fleet import RecruiterCreate, RecruiterRow

    values = given(context.options)
    row = context.api().call(RecruiterCreate(step_id=groups.step_id_of(context), **values), RecruiterRow)
    if context.out.is_json:
        context.out.json(row)
    else:
        context.out.text(str(row.id))
    return EXIT_OK
