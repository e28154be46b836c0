"""`scitq top`: a live view of the queue, the workers and the running tasks."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import termios
import tty
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import neutral
from scitq.errors import EXIT_OK, NotFoundError, UnavailableError, UsageError
from scitq.model.lifecycle import NAMES
from scitq.util.units import format_bytes, format_duration

if TYPE_CHECKING:
    from rich.console import Group

    from scitq.protocol.messages.server import ServerState
    from scitq.protocol.messages.task import TaskDetails, TaskRow
    from scitq.protocol.messages.worker import WorkerStatsRow

EPILOG = "q or Ctrl-C quits"


class View(NamedTuple):
    """What is shown at one moment."""

    state: ServerState
    workers: list[WorkerStatsRow]
    running: list[TaskRow]
    transfers: dict[int, dict[str, int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often."""
    parser.add_argument(
        "--interval", metavar="TIME", type=arguments.duration, default=2.0, help="time between two looks, in seconds or as 10s"
    )


def fetch(context: Context) -> View:
    """Ask the server for all that is shown."""
    from scitq.protocol.messages.server import ServerState, ServerStatus
    from scitq.protocol.messages.task import TaskList, TaskRows, TasksDetails, TaskShow
    from scitq.protocol.messages.worker import WorkerStats, WorkerStatsRows

    api = context.api()
    running = api.call(TaskList(status="DORUVZ", limit=100), TaskRows, patience_s=60).rows
    moving = [row.id for row in running if row.status in {"D", "U", "V"}]
    details: list[TaskDetails] = []
    with suppress(NotFoundError):  # one of them has ended and was deleted meanwhile
        details = api.call(TaskShow(ids=moving), TasksDetails, patience_s=60).tasks if moving else []
    return View(
        api.call(ServerStatus(), ServerState, patience_s=60),
        api.call(WorkerStats(ids=[]), WorkerStatsRows, patience_s=60).rows,
        running,
        {task.row.id: task.progress for task in details},
    )


def _used(row: WorkerStatsRow) -> tuple[str, ...]:
    if row.stats is None:
        return ("-",) * 4
    stats = row.stats
    memory = f"{format_bytes(stats.memory_used_bytes)}/{format_bytes(stats.memory_total_bytes)}"
    net = f"{format_bytes(stats.net_in_bytes_s)}/{format_bytes(stats.net_out_bytes_s)}"
    return f"{stats.cpu_percent:.0f}%", memory, f"{stats.load_1:.1f}", net


def _moved(progress: dict[str, int] | None) -> str:
    return f"{format_bytes(progress['bytes_done'])}/{format_bytes(progress['bytes_to_do'])}" if progress else ""


def draw(view: View, address: str, height: int, note: str = "") -> Group:
    """The picture, at most `height` lines."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    state = view.state
    up = format_duration((state.now_ms - state.started_ms) / 1000)
    head = Text(f"scitq {state.version} at {address}, up {up}, loop {state.loop_busy_percent:.0f}% busy, {state.connections} connections")
    counts = "  ".join(f"{letter}:{state.tasks[letter]}" for letter in NAMES if state.tasks.get(letter))
    queue = Text(f"tasks    {counts or 'none'}")
    fleet = Text(f"workers  {'  '.join(f'{name} {count}' for name, count in state.workers.items() if count) or 'none'}")
    lines = max(4, height - 8)
    for_workers = min(len(view.workers), max(2, lines // 2))
    workers = Table(box=None, padding=(0, 1, 0, 0), expand=True)
    for name, wide in (("worker", 2), ("status", 1), ("run", 0), ("cpu", 0), ("memory", 2), ("load", 0), ("net/s in/out", 2)):
        workers.add_column(name, no_wrap=True, overflow="ellipsis", ratio=wide or None)
    for worker in view.workers[:for_workers]:
        cpu, memory, load, net = _used(worker)
        running = str(worker.stats.running) if worker.stats else "-"
        workers.add_row(Text(f"{worker.id} {neutral(worker.name)}"), worker.status, running, cpu, memory, load, net)
    tasks = Table(box=None, padding=(0, 1, 0, 0), expand=True)
    for name, wide in (("task", 0), ("s", 0), ("time", 0), ("moved", 0), ("worker", 0), ("user", 1), ("command", 5)):
        tasks.add_column(name, no_wrap=True, overflow="ellipsis", ratio=wide or None)
    for row in view.running[: max(1, lines - for_workers)]:
        since = row.started_ms or row.changed_ms
        spent = format_duration(max(0, state.now_ms - since) / 1000)
        shown = Text(neutral(row.name or row.command))
        moved, user = _moved(view.transfers.get(row.id)), Text(neutral(row.user))
        tasks.add_row(str(row.id), row.status, spent, moved, str(row.worker_id or ""), user, shown)
    return Group(head, queue, fleet, Text(""), workers, Text(""), tasks, Text(note or "q quits"))


def _is_quit(wait_s: float) -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], wait_s)
    return bool(ready) and os.read(sys.stdin.fileno(), 1) in {b"q", b"Q", b"\x03", b"\x04", b""}


def run(context: Context) -> int:
    """On a terminal only."""
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        raise UsageError(
            "top draws on a terminal, and this is none; for scripts there are `scitq status --json` and `scitq task list --json`"
        )
    view = fetch(context)
    from rich.console import Console
    from rich.live import Live

    address = str(context.api().address)
    console = Console(highlight=False)
    before = termios.tcgetattr(sys.stdin)
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    try:
        tty.setcbreak(sys.stdin)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            note = ""
            while True:
                live.update(draw(view, address, console.size.height, note), refresh=True)
                if _is_quit(context.options.interval):
                    return EXIT_OK
                try:
                    view, note = fetch(context), ""
                except UnavailableError as error:
                    note = error.message
    except KeyboardInterrupt:
        return EXIT_OK
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
