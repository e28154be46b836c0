"""`scitq status`: how the server is."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.commands.render import local_time
from scitq.errors import EXIT_OK
from scitq.util.units import format_bytes, format_duration


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """None but those of every command."""


def _counts(counts: dict[str, int]) -> str:
    return "  ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"


def run(context: Context) -> int:
    """With the servers of this user on this host, when there are several."""
    from scitq.client import locate
    from scitq.protocol.messages.server import ServerState, ServerStatus

    state = context.api().call(ServerStatus(), ServerState)
    out = context.out
    if out.is_json:
        out.json(state)
        return EXIT_OK
    if out.is_quiet:
        return EXIT_OK
    others = [server for server in locate.running_servers() if server.pid != state.pid]
    out.fields(
        [
            ("server", str(context.api().address)),
            ("version", state.version),
            *([("draining", "no new tasks are given; it ends when the last one has left its worker")] if state.is_draining else []),
            ("running since", f"{local_time(state.started_ms)} ({format_duration((state.now_ms - state.started_ms) / 1000)})"),
            ("process", f"{state.pid}, {format_bytes(state.memory_bytes)} of memory, loop {state.loop_busy_percent:.0f}% busy"),
            ("data", f"{state.data_folder} ({format_bytes(state.disk_free_bytes)} free)"),
            ("connections", str(state.connections)),
            ("tasks", _counts(state.tasks)),
            ("workers", _counts(state.workers)),
            *(("also yours here", f"{locate.Address(server.host, server.port)}, data in {server.data_dir}") for server in others),
        ]
    )
    return EXIT_OK
