"""Runs tasks without a container, through the keeper, which outlives a killed agent."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from scitq.agent.executors.base import Adopted, Ended, Job, Sink
from scitq.agent.keeper.client import KeeperClient
from scitq.agent.keeper.messages import NOT_STARTED, Exited, Grown, Kept, Key, Ready, Release, Signal, Start
from scitq.agent.loop import Loop
from scitq.errors import UnavailableError
from scitq.model.task import Use
from scitq.storage.base import Cancel
from scitq.util import clock


class BareExecutor:
    """Belongs to the loop's thread. `lost` is called when the keeper is gone, and with it all tasks."""

    name = "bare"

    def __init__(self, loop: Loop, keeper: KeeperClient, sink: Sink) -> None:
        self._loop = loop
        self._keeper = keeper
        self._sink = sink
        self._running: set[Key] = set()
        self._ended_meanwhile: list[Exited] = []
        self._explain: dict[Key, Callable[[Ended], Ended]] = {}
        self.pids: dict[Key, int] = {}

    def prepare(self, image: str, credentials: dict[str, dict[str, str]], cancel: Cancel) -> None:
        """Nothing to get."""

    def start(self, job: Job, explain: Callable[[Ended], Ended] | None = None) -> None:
        """Hand the job to the keeper; that it runs is said at once, and taken back by an Ended without status.

        explain: for an executor that starts by way of this one, to say better how the job ended.
        """
        folders = job.folders
        if job.program.script is not None:
            folders.script.write_bytes(job.program.script)
            folders.script.chmod(0o500)
        self._running.add(job.key)
        if explain is not None:
            self._explain[job.key] = explain
        words = [*(job.program.entrypoint or []), *job.program.words]
        most = int((job.assignment.spec.mem_gib or 0) * (1 << 30))
        self._keeper.command(Start(job.key, words, job.env, str(folders.root), str(folders.log), job.log_cap, job.blob, most))
        self._sink.started(job.key)

    def signal(self, key: Key, number: int, *, to_first: bool = False) -> None:
        """By way of the keeper, to the whole tree of processes. to_first: to the one that was started alone."""
        self._keeper.command(Signal(key, number, to_first))

    def freeze(self, key: Key, is_frozen: bool) -> None:
        """SIGSTOP or SIGCONT."""
        self.signal(key, signal.SIGSTOP if is_frozen else signal.SIGCONT)

    def adopt(self) -> list[Adopted]:
        """What the keeper holds; then listens to it."""
        found: list[Adopted] = []
        deadline_s = clock.monotonic_s() + 10
        is_ready = False
        while not is_ready:
            if self._keeper.is_lost or clock.monotonic_s() > deadline_s:
                raise UnavailableError("the keeper, which runs this agent's bare tasks, does not answer")
            for notice in self._keeper.receive():
                match notice:
                    case Kept():
                        self._running.add(notice.key)
                        self.pids[notice.key] = notice.pid
                        found.append(Adopted(notice.key, notice.blob, notice.age_s, notice.exited is None))
                        if notice.exited is not None:
                            self._ended_meanwhile.append(notice.exited)
                        else:
                            self._grown_later(notice.key, notice.log_bytes)
                    case Ready():
                        is_ready = True
                    case Exited() | Grown():
                        self._take(notice)
            if not is_ready:
                clock.sleep_s(0.002)
        for exited in self._ended_meanwhile:
            self._loop.post(lambda exited=exited: self._take(exited))  # type: ignore[misc] # the loop's value
        self._loop.watch(self._keeper.descriptor, self._hear)
        self._loop.before_wait.append(self._flush)
        return found

    def release(self, key: Key) -> None:
        """The keeper may forget it."""
        self._running.discard(key)
        self._keeper.command(Release(key))

    def fix_permissions(self, folder: Path, image: str) -> None:
        """The task ran as this user; closed folders are opened when they are removed."""

    def close(self) -> None:
        """Part from the keeper, which ends when nothing is left."""
        self._keeper.flush()
        self._loop.unwatch(self._keeper.descriptor)
        self._keeper.close()

    def _grown_later(self, key: Key, log_bytes: int) -> None:
        self._loop.post(lambda: self._sink.grown(key, log_bytes))

    def _flush(self) -> None:
        self._keeper.flush()
        if self._keeper.has_unsent:
            self._loop.after(0.005, self._flush)

    def _hear(self) -> None:
        for notice in self._keeper.receive():
            self._take(notice)
        if self._keeper.is_lost:
            self._loop.unwatch(self._keeper.descriptor)
            for key in list(self._running):
                self._sink.ended(Ended(key, None, "the process that held it was killed", "lost", is_own_fault=True))
            self._running.clear()

    def _take(self, notice: object) -> None:
        match notice:
            case Exited():
                explain = self._explain.pop(notice.key, None)
                ended = self._ended(notice)
                self._sink.ended(explain(ended) if explain else ended)
            case Grown():
                self._sink.grown(notice.key, notice.log_bytes)

    def _ended(self, exited: Exited) -> Ended:
        if exited.status == NOT_STARTED:
            return Ended(exited.key, None, exited.error, "start", log=b"")
        status = exited.status if exited.status >= 0 else 128 - exited.status
        use = Use(
            cpu_s=round(exited.cpu_s, 6),
            peak_memory_bytes=exited.peak_memory_bytes or None,
            read_bytes=exited.read_bytes,
            written_bytes=exited.written_bytes,
        )
        cause = "oom" if exited.is_out_of_memory else ""
        log = exited.log if exited.log or not exited.log_bytes else None
        return Ended(exited.key, status, "", cause, use=use, wall_s=exited.wall_s, log=log, log_bytes=exited.log_bytes)
