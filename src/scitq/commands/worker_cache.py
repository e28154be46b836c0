"""`scitq worker cache list` and `clear`: the shared resources that a worker keeps."""

from __future__ import annotations

import argparse
from typing import Any

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import Column
from scitq.errors import EXIT_OK
from scitq.util.units import format_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose."""
    parser.add_argument("--worker-id", "--id", metavar="ID", dest="worker_id", type=arguments.positive, required=True, help="the worker")


def _cell(name: str, value: object) -> str:
    return format_bytes(value) if name.endswith("bytes") and isinstance(value, int) else "" if value is None else str(value)


def run(context: Context) -> int:
    """What the agent answers: a list of entries, or what was removed."""
    from scitq.protocol.messages.worker import WorkerAnswer, WorkerAsk

    order = "cache_clear" if context.command.path[-1] == "clear" else "cache_list"
    asked = WorkerAsk(id=context.options.worker_id, order=order)
    result: Any = context.api().call(asked, WorkerAnswer, waits_s=asked.at_most_s).result
    out = context.out
    if out.is_json:
        out.json(result)
    elif out.is_quiet:
        out.ids([context.options.worker_id])
    elif isinstance(result, list) and all(isinstance(entry, dict) for entry in result):
        names = list(result[0]) if result else []
        out.table([[_cell(name, entry.get(name)) for name in names] for entry in result], [Column(name, str) for name in names])
    elif isinstance(result, dict):
        out.fields((name, _cell(name, value)) for name, value in result.items())
    else:
        out.text(str(result))
    return EXIT_OK
