"""`scitq worker show`: all that is known of a worker."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import local_time, optional
from scitq.errors import EXIT_OK, NotFoundError
from scitq.util.units import figure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which workers."""
    arguments.add_worker_ids(parser, "show")


def run(context: Context) -> int:
    """Deleted ones too."""
    from scitq.protocol.messages.worker import WorkerList, WorkerRows

    ids = arguments.worker_ids(context.options)
    rows = context.api().call(WorkerList(ids=ids, show_deleted=True), WorkerRows).rows
    missing = sorted(set(ids) - {row.id for row in rows})
    if missing:
        raise NotFoundError(f"there is no worker {', '.join(map(str, missing))}")
    out = context.out
    if out.is_json:
        out.json(rows)
        return EXIT_OK
    if out.is_quiet:
        out.ids(row.id for row in rows)
        return EXIT_OK
    for position, row in enumerate(rows):
        if position:
            out.text("")
        has = row.hardware
        requests = "" if has is None else ", ".join(f"{name} {count}" for name, count in has.requests.items())
        out.fields(
            [
                ("id", str(row.id)),
                ("name", row.name),
                ("status", row.status),
                ("reason", row.reason),
                ("host", row.host),
                ("addresses", ", ".join(row.addresses)),
                ("slots", f"{row.concurrency} concurrent, {row.prefetch} prefetched"),
                ("tasks", f"{row.running} running, {row.held} held"),
                ("step", optional(row.step_id)),
                (
                    "hardware",
                    ""
                    if has is None
                    else f"{figure(has.cpus)} cpus, {figure(has.mem_gib)} GiB, {figure(has.disk_gb)} GB disk, {has.gpus} GPUs {has.gpu}".rstrip(),
                ),
                ("offers", requests),
                ("runtimes", ", ".join(row.runtimes)),
                ("bare tasks", "yes" if row.allows_bare else "no"),
                ("provider", row.provider),
                ("region", row.region),
                ("flavor", row.flavor),
                ("machine", row.machine),
                ("scope", row.scope),
                ("permanent", "yes" if row.is_permanent else "no"),
                ("owner", row.owner),
                ("version", row.version),
                ("created", local_time(row.created_ms)),
                ("seen", local_time(row.seen_ms)),
                ("ends", local_time(row.ends_ms)),
            ]
        )
    return EXIT_OK
