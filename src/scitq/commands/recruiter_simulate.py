"""`scitq recruiter simulate`: what a workload would take and cost, in simulated time."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.flavor_list import filter_text
from scitq.errors import EXIT_OK, UsageError
from scitq.util.units import format_duration, parse_duration_s

EPILOG = """Steps are given in order, each as TASKSxTIME; with a leading + task i waits for task i of the step before.
Example: scitq recruiter simulate --step 1000x5m --step +1000x90s --filter 'cpu>=8' --cpus-per-task 2 --max-workers 50"""


def _step(text: str) -> tuple[int, float, bool]:
    count, times, duration = text.removeprefix("+").partition("x")
    if not times or not count.isdigit() or int(count) < 1:
        raise UsageError(f"{text!r} is no step; write TASKSxTIME, for example 1000x5m")
    return int(count), parse_duration_s(duration), text.startswith("+")


def _percent(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 95:
        raise UsageError(f"{text!r} must lie between 0 and 95")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The work, the rules, the cloud's moods."""
    add = parser.add_argument
    add("--step", dest="steps", metavar="TASKSxTIME", action="append", type=arguments.checked(_step), required=True, help="a step's tasks")
    add("--filter", metavar="FILTER", type=arguments.checked(filter_text), default="", help="flavors that may be used")
    add("--concurrency", metavar="N", type=arguments.positive, help="tasks that each worker runs at once (default: 1)")
    add("--cpus-per-task", metavar="N", type=arguments.number, help="adapt the concurrency to the flavor: CPUs of one task")
    add("--mem-per-task", dest="mem_per_task", metavar="GIB", type=arguments.gib, help="the same: memory of one task")
    add("--rounds", metavar="N", type=arguments.number, default=1.0, help="rounds in which the open tasks shall be done")
    add("--max-workers", metavar="N", type=arguments.positive, help="never more workers than this at a time")
    add(
        "--delay",
        metavar="TIME",
        type=arguments.duration_or_zero,
        default=90.0,
        help="from the order of a machine to its readiness (seconds)",
    )
    add("--fail-percent", metavar="P", type=arguments.checked(_percent), default=0.0, help="part of the deployments that fail")
    add("--evictions-per-hour", metavar="N", type=arguments.number, help="how often an hour each machine is reclaimed (default: never)")
    add("--seed", metavar="TEXT", default="1", help="the same seed gives the same run")


def run(context: Context) -> int:
    """Time, cost, and the cheapest cost there could be."""
    from scitq.protocol.messages.fleet import RecruiterSimulate, RecruiterSimulated

    options = context.options
    asked = RecruiterSimulate(
        steps=options.steps,
        filter=options.filter,
        concurrency=options.concurrency,
        cpus_per_task=options.cpus_per_task,
        mem_per_task_gib=options.mem_per_task,
        rounds=options.rounds,
        max_workers=options.max_workers,
        delay_s=options.delay,
        fail_percent=options.fail_percent,
        evictions_per_hour=options.evictions_per_hour,
        seed=options.seed,
    )
    found = context.api().call(asked, RecruiterSimulated, waits_s=600.0)
    if context.out.is_json:
        context.out.json(found)
        return EXIT_OK
    ratio = f" ({found.cost / found.cheapest_cost:.2f} of it)" if found.cheapest_cost else ""
    context.out.fields(
        [
            ("time", format_duration(found.seconds)),
            ("cost", f"{found.cost:.2f}"),
            ("cheapest possible", f"{found.cheapest_cost:.2f}{ratio}"),
            ("machines", f"{found.machines_made - found.failed_deployments}, at most {found.most_at_once} at once"),
            ("failed deployments", str(found.failed_deployments)),
            ("evictions", str(found.evictions)),
        ]
    )
    return EXIT_OK
