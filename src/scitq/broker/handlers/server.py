"""The server itself: figures, stopping, backup."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import psutil

from scitq import __version__
from scitq.broker.context import Ctx, Later, Reading
from scitq.broker.dispatch import handles, reads
from scitq.broker.store import tasks, workers
from scitq.errors import UsageError
from scitq.protocol.messages import server as m
from scitq.protocol.registry import Done
from scitq.util.files import free_bytes


@reads(m.ServerStatus)
def status(reading: Reading, message: m.ServerStatus) -> m.ServerState:
    """Figures of the server."""
    broker = reading.broker
    return m.ServerState(
        version=__version__, started_ms=broker.started_ms, now_ms=reading.now_ms, port=broker.port, pid=os.getpid(),
        data_folder=str(broker.folder), tasks=tasks.counts(reading.db), connections=len(broker.connections),
        workers=dict(Counter(worker.status for worker in workers.listed(reading.db))), memory_bytes=psutil.Process().memory_info().rss,
        loop_busy_percent=round(broker.busy_percent, 1), disk_free_bytes=free_bytes(broker.folder),
        is_draining=broker.is_draining,
    )  # fmt: skip


@handles(m.ServerStop)
def stop(ctx: Ctx, message: m.ServerStop) -> Done:
    """End now, or when no worker holds a task."""

    def effect() -> None:
        ctx.broker.is_draining = True
        ctx.broker.stop_wanted = ctx.broker.stop_wanted or not message.is_draining

    ctx.after(effect)
    return Done()


@handles(m.ServerBackup)
def backup(ctx: Ctx, message: m.ServerBackup) -> Later[tuple[str, int]]:
    """Copy the database in a thread."""
    folder = ctx.broker.folder
    if message.path and not message.path.startswith("/"):
        raise UsageError("the path of a backup is absolute, on the server's disk")
    target = Path(message.path) if message.path else folder / f"backup-{ctx.now_ms}.db"
    store = ctx.broker.store

    def work() -> tuple[str, int]:
        return str(target), store.backup(target)

    return Later(work, lambda _, made: m.BackupMade(path=made[0], size_bytes=made[1]))
