"""What the runner stands on: the attempts that are here, their journals and notes, work in threads, and cleaning up."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from scitq.agent.attempt import Attempt, Phase, save
from scitq.agent.executors.base import Executor
from scitq.agent.folders import DataContext, TaskFolders
from scitq.agent.keeper.messages import Key
from scitq.agent.loop import Loop
from scitq.agent.outbox import Outbox
from scitq.agent.preparations import Preparations
from scitq.agent.slots import Slots
from scitq.agent.spare import SpareFolders
from scitq.agent.steps import fetch
from scitq.agent.tasklog import note
from scitq.protocol.messages.agent import Hardware, Held
from scitq.util import clock, files

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class Surroundings:
    """What the server told, and what this worker is; settings change with each registration."""

    work_dir: Path
    hardware: Hardware
    allows_bare: bool = True
    storages: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    registries: dict[str, dict[str, str]] = field(default_factory=dict, repr=False)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> DataContext:
        """For the data steps."""
        return DataContext(self.storages, self.settings, self.work_dir)


class Upkeep:
    """Belongs to the loop's thread; `containers` is None on a worker without a runtime. Outbox and executors are set once made."""

    def __init__(self, loop: Loop, surroundings: Surroundings, workers: ThreadPoolExecutor) -> None:
        self._loop = loop
        self.around = surroundings
        self._workers = workers
        self.bare: Executor | None = None
        self.containers: Executor | None = None
        self.outbox: Outbox | None = None
        self.attempts: dict[Key, Attempt] = {}
        self.slots = Slots(surroundings.hardware)
        self._spare = SpareFolders(surroundings.work_dir / "spare")
        self._preparations = Preparations(lambda: self.slots.concurrency, self._prepare)
        self.is_draining = False
        self._is_known = False
        self._early: list[Attempt] = []
        self.became_idle: Callable[[], None] = lambda: None
        self.files_kept: Callable[[Key], None] = lambda _: None
        self.tasks_folder = surroundings.work_dir / "tasks"
        self.tasks_folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def _out(self) -> Outbox:
        assert self.outbox is not None
        return self.outbox

    def executor_of(self, attempt: Attempt) -> Executor | None:
        """What runs it, or None when this worker can't."""
        return self.bare if attempt.is_bare else self.containers

    def folders_of(self, key: Key) -> TaskFolders:
        """Where the attempt's files lie."""
        return TaskFolders(self.tasks_folder / f"{key[0]}-{key[1]}")

    def held(self) -> list[Held]:
        """All attempts that are here."""
        return [Held(task_id=a.key[0], attempt=a.key[1], status=a.letter) for a in self.attempts.values() if not a.is_unwanted]

    def fill(self) -> None:
        """Start what has a slot now."""
        raise NotImplementedError

    def _prepare(self, attempt: Attempt) -> None:
        """Bring what an attempt needs; its turn has come."""
        raise NotImplementedError

    # --- clean up --------------------------------------------------------------------------------------------------

    def settled(self, key: Key) -> None:
        """The server has the attempt's end on disk: drop what is left of it."""
        attempt = self.attempts.get(key)
        if attempt is not None and attempt.phase is Phase.OVER:
            self._drop(attempt)

    def forget(self, key: Key) -> None:
        """The server does not want the attempt any more: stop it, say nothing of it, drop it."""
        attempt = self.attempts.get(key)
        if attempt is None:
            return
        attempt.is_unwanted = True
        self._out.forget(key)
        executor = self.executor_of(attempt)
        match attempt.phase:
            case Phase.FETCHING | Phase.SHIPPING | Phase.SHIPPING_FAILED:
                attempt.cancel.cancel()
            case Phase.STARTING | Phase.RUNNING:
                if executor is not None:
                    executor.freeze(key, False)
                    executor.signal(key, signal.SIGKILL)
            case _:
                self._discard(attempt)

    def _discard(self, attempt: Attempt) -> None:
        attempt.phase, attempt.keeps_files = Phase.OVER, False
        self._out.forget(attempt.key)
        self._drop(attempt)
        self.fill()

    def _drop(self, attempt: Attempt) -> None:
        attempt.stop_timers()
        self.attempts.pop(attempt.key, None)
        self.slots.drop(attempt)
        executor = self.executor_of(attempt)
        if executor is not None:
            executor.release(attempt.key)
        is_quick = attempt.is_bare and not attempt.has_lease
        if not is_quick or not (attempt.keeps_files or self._spare.keep(attempt.folders)):
            self.in_thread(lambda: self._remove(attempt, executor), _ignore, _log_removal)
        if not self.attempts:
            self.became_idle()

    def _remove(self, attempt: Attempt, executor: Executor | None) -> None:
        if attempt.has_lease:
            fetch.release(attempt.folders)
        if attempt.keeps_files:
            return
        try:
            files.remove_tree(attempt.folders.root)
        except OSError:
            if executor is None or attempt.is_bare:
                raise
            executor.fix_permissions(attempt.folders.root, attempt.assignment.spec.container)
            files.remove_tree(attempt.folders.root)

    # --- smaller things --------------------------------------------------------------------------------------------

    def save(self, attempt: Attempt, stage: str) -> None:
        """Write the journal with the log's tail; a full disk only costs the recovery."""
        executor = self.executor_of(attempt)
        log = self._out.log(attempt.key, attempt.folders.log)
        try:
            save(attempt, stage, executor.name if executor else "", clock.now_ms(), log.tail, log.size)
        except OSError as error:
            logger.warning("task %d: its journal can't be written: %s", attempt.key[0], error)

    def _note(self, attempt: Attempt, text: str) -> None:
        log = self._out.log(attempt.key, attempt.folders.log)
        log.tail += note(f"scitq: {text}")
        self._out.log_changed(attempt.key)

    def _progress(self, attempt: Attempt) -> Callable[[int, int], None]:
        latest = 0, 0
        is_first = True

        def tell(done: int, total: int) -> None:
            nonlocal latest, is_first
            latest = done, total
            if is_first:
                is_first = False
                self._loop.post(lambda: self._out.progress(attempt.key, lambda: latest))

        return tell

    def in_thread(self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[BaseException], None]) -> None:
        """Do `work` in a thread; one of the others is called with its outcome, in the loop."""

        def run() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - whatever it is, the loop must hear of it
                failure = error
                self._loop.post(lambda: failed(failure))
                return
            self._loop.post(lambda: done(result))

        with suppress(RuntimeError):  # at the end of the agent
            self._workers.submit(run)


def _ignore(_: object) -> None:
    """Nothing to do."""


def _log_removal(error: BaseException) -> None:
    logger.warning("a task's folder can't be removed: %s", error)
