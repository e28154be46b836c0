"""`scitq recruiter create | update`."""

from __future__ import annotations

import argparse
from typing import Any

from scitq.commands import arguments, groups
from scitq.commands.context import Context
from scitq.commands.flavor_list import filter_text
from scitq.errors import EXIT_OK, UsageError

EPILOG = """A recruiter brings workers to a step: so many that the step's open tasks fit into `--rounds` rounds. Idle workers come first, then
the cheapest flavor that passes the filter, the quotas and what a task needs. Filters: see `scitq flavor list --help`."""
_FIELDS = ("filter", "rank", "concurrency", "cpus_per_task", "mem_per_task_gib", "disk_per_task_gb", "concurrency_min", "concurrency_max",
           "prefetch", "prefetch_percent", "rounds", "max_workers", "timeout_s")  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """What both create and update take."""
    add = parser.add_argument
    add("--filter", metavar="FILTER", type=arguments.checked(filter_text), help="flavors that may be used, as cpu>=8:mem>10")
    add("--rank", metavar="N", type=arguments.natural, help="recruiters of a step are asked by rank, 1 first (default: 1)")
    add("--concurrency", metavar="N", type=arguments.positive, help="tasks that each worker runs at once (default: 1)")
    add("--cpus-per-task", metavar="N", type=arguments.number, help="adapt the concurrency to the flavor: CPUs of one task")
    add("--mem-per-task", dest="mem_per_task_gib", metavar="GIB", type=arguments.gib, help="the same: memory of one task")
    add("--disk-per-task", dest="disk_per_task_gb", metavar="GB", type=arguments.gb, help="the same: disk of one task")
    add("--concurrency-min", metavar="N", type=arguments.positive, help="no flavor that fits less (default: 1)")
    add("--concurrency-max", metavar="N", type=arguments.positive, help="never more, however large the flavor")
    add("--prefetch", metavar="N", type=arguments.natural, help="tasks that each worker prepares ahead (default: 0)")
    add("--prefetch-percent", metavar="N", type=arguments.natural, help="the same, as a part of the concurrency")
    add("--rounds", metavar="N", type=arguments.number, help="rounds in which the open tasks shall be done (default: 1)")
    add("--max-workers", metavar="N", type=arguments.natural, help="never more workers than this at a time")
    add(
        "--timeout", dest="timeout_s", metavar="TIME", type=arguments.duration_or_zero, help="deploy only after so long without an idle one"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The step, and the rules."""
    groups.add_step(parser, "recruit for")
    add_options(parser)


def given(options: argparse.Namespace) -> dict[str, Any]:
    """What was typed, by the message's field names."""
    found = {name: getattr(options, name) for name in _FIELDS if getattr(options, name) is not None}
    adapts = any(name in found for name in ("cpus_per_task", "mem_per_task_gib", "disk_per_task_gb"))
    if adapts and "concurrency" in found:
        raise UsageError("give either --concurrency or what a task needs (--cpus-per-task, …), not both")
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
