"""The agent: takes tasks from the server and carries them out on this machine (docs/agent.md)."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from scitq import __version__, errors
from scitq.agent import data, hardware
from scitq.agent.attempt import load
from scitq.agent.executors.bare import BareExecutor
from scitq.agent.executors.base import Executor
from scitq.agent.executors.detect import container_executor
from scitq.agent.keeper.client import KeeperClient
from scitq.agent.keeper.messages import Key
from scitq.agent.link import Link
from scitq.agent.loop import Loop, Timer
from scitq.agent.options import AgentOptions
from scitq.agent.orders import Orders
from scitq.agent.outbox import Outbox
from scitq.agent.restore import restore, seconds_since
from scitq.agent.runner import Runner
from scitq.agent.stats import StatsSampler
from scitq.agent.upkeep import Surroundings
from scitq.errors import ConflictError, NotFoundError, NotLoggedInError, ScitqError, UsageError
from scitq.protocol.messages.agent import (
    AgentAnswer,
    AgentGoodbye,
    AgentOffer,
    AgentOrders,
    AgentRegister,
    AgentReport,
    Held,
    Registered,
    Reported,
    Stats,
)
from scitq.protocol.registry import Reply
from scitq.util import bundle, clock, files
from scitq.util import log as logs

logger = logging.getLogger(__name__)

GOODBYE_WITHIN_S = 5.0
"""So long an ending agent waits for the server to take its last reports and its goodbye."""
BEFORE_WALLTIME_S = 20.0
"""An agent in an allocation ends so long before it is cut off."""
_UID = "agent.uid"
KEPT_EVERY_S = 600.0
THREADS = 64
"""Transfers, uploads and containers' starts at once; each has its own limits besides."""


def run(options: AgentOptions) -> int:
    """Be an agent until a signal, an order or the end of the allocation; returns the exit status.

    Must be called in a process with one thread: the keeper is forked here.
    """
    logs.set_up(options.log_level)
    files.make_private_folder(options.work_dir)
    lock = lock_folder(options.work_dir)
    if lock is None:
        logger.error("another agent works in %s; give this one its own --work-dir", options.work_dir)
        return errors.EXIT_CONFLICT
    try:
        return Agent(options, KeeperClient(options.work_dir)).run()
    except ScitqError as error:
        logger.error("%s", error.message)
        return error.exit_status
    finally:
        os.close(lock)


class Agent:
    """Ties the parts together."""

    def __init__(self, options: AgentOptions, keeper: KeeperClient) -> None:
        self._options = options
        self._loop = Loop()
        self._uid = _uid(options.work_dir)
        self._exit_status = 0
        self._is_ending = False
        self._has_parted = False
        self._heartbeat: Timer | None = None
        self._idle: Timer | None = None
        self._heartbeat_s = 5.0
        self._was_ready = False
        self._ends_s: float | None = None
        self._end_timer: Timer | None = None
        self._workers = ThreadPoolExecutor(THREADS, "step")
        self._stats = StatsSampler(options.work_dir)
        around = Surroundings(options.work_dir, hardware.measure(options.work_dir), options.allows_bare)
        self._runner = Runner(self._loop, around, self._workers)
        self._outbox = Outbox(self._send_report, self._runner.settled, self._runner.forget)
        self._runner.outbox = self._outbox
        self._bare = BareExecutor(self._loop, keeper, self._runner)
        self._keeper = keeper
        self._containers = container_executor(options.runtime, self._uid, options.work_dir, self._bare, self._runner)
        if self._containers is None and not options.allows_bare:
            raise ScitqError("this worker could run nothing: it has no container runtime, and --no-bare forbids bare tasks")
        self._runner.bare, self._runner.containers = self._bare, self._containers
        self._orders = Orders(self._runner, self._outbox, {}, answer=self._answer, settings=self._change_settings, quit_agent=self._end)
        self._runner.files_kept = self._keep
        self._runner.became_idle = self._watch_idle

    def run(self) -> int:
        """Until the end; returns the exit status."""
        executors: list[Executor] = [self._bare, *([self._containers] if self._containers else [])]
        self._orders.kept.update(restore(self._runner, self._outbox, executors))
        options = self._options
        self._link = Link(
            self._loop,
            options.server,
            options.server_key,
            options.token,
            describe=self._describe,
            registered=self._registered,
            pushed=self._pushed,
            refused=self._refused,
        )
        self._loop.before_wait.append(self._flush)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._loop.post(lambda: self._end("stopped")))
        if options.seconds_left is not None:
            self._end_within(options.seconds_left)
        self._loop.after(KEPT_EVERY_S, self._drop_old_kept)
        self._watch_idle()
        self._loop.run()
        for number in (signal.SIGTERM, signal.SIGINT):  # a second one finds nothing to end any more
            signal.signal(number, signal.SIG_IGN)
        self._link.close()
        self._workers.shutdown(wait=False, cancel_futures=True)
        for executor in reversed(executors):
            executor.close()
        self._loop.close()
        data.close_storages()
        logger.info("ended")
        return self._exit_status

    # --- the server ------------------------------------------------------------------------------------------------

    def _describe(self) -> AgentRegister:
        options = self._options
        return AgentRegister(
            uid=self._uid,
            name=options.name or socket.gethostname(),
            host=socket.gethostname(),
            addresses=hardware.addresses(),
            hardware=self._runner.around.hardware,
            runtimes=[*(["bare"] if options.allows_bare else []), *([self._containers.name] if self._containers else [])],
            allows_bare=options.allows_bare,
            concurrency=None if self._was_ready else options.concurrency,
            prefetch=None if self._was_ready else options.prefetch,
            machine=options.machine,
            provider=options.provider,
            region=options.region,
            flavor=options.flavor,
            seconds_left=self._seconds_left(),
            held=[*self._runner.held(), *(Held(task_id=key[0], attempt=key[1], status="U") for key in self._orders.kept)],
            version=__version__,
            step=options.step,
            is_first=not self._was_ready,
        )

    def _registered(self, told: Registered) -> None:
        around = self._runner.around
        around.storages, around.registries, around.settings = told.storages, told.registries, told.settings
        self._runner.slots.concurrency = max(0, told.concurrency)
        for key in told.unwanted:
            self._runner.forget(key)
        self._runner.known()
        for key in set(self._orders.kept) - set(told.unwanted):
            self._orders.upload_again(key)
        self._heartbeat_s = max(0.2, told.heartbeat_s)
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        self._beat()
        if not self._was_ready:
            self._was_ready = True
            bundle.keep_fresh("scitq.agent", "scitq.storage", "scitq.protocol")
            logger.info("ready: worker %d of %s, %d tasks at once", told.worker_id, self._options.server, told.concurrency)
        self._runner.fill()

    def _pushed(self, message: Reply) -> None:
        match message:
            case AgentOffer():
                if self._idle is not None:
                    self._idle.cancel()
                for assignment in message.tasks:
                    self._runner.offer(assignment)
            case AgentOrders():
                for order in message.orders:
                    self._orders.carry_out(order)

    def _refused(self, error: ScitqError) -> None:
        """A server that will never have this agent ends it; one that had it before may be in the middle of a change."""
        is_wrong = isinstance(error, (NotFoundError, UsageError)) and not self._runner.attempts  # a step that is not, too many slots
        is_new = not self._was_ready
        if isinstance(error, ConflictError) or (is_new and (is_wrong or isinstance(error, NotLoggedInError))):
            self._exit_status = error.exit_status
            self._end("refused")

    def _beat(self) -> None:
        self._heartbeat = self._loop.after(self._heartbeat_s, self._beat)
        running = self._runner.slots.running
        self._runner.in_thread(lambda: self._stats.sample(running), self._beaten, lambda error: logger.error("stats: %s", error))

    def _beaten(self, stats: Stats) -> None:
        held = [entry for entry in self._runner.attempts if not self._runner.attempts[entry].is_unwanted]
        self._outbox.beat(stats, held, self._seconds_left())

    def _send_report(self, make: Callable[[], AgentReport], answered: Callable[[Reported], None], failed: Callable[[], None]) -> None:
        def refuse(error: ScitqError) -> None:
            logger.error("the server could not take a report: %s", error)
            failed()

        self._link.request_made(AgentReport, make, lambda reply: answered(cast(Reported, reply)), refuse)

    def _flush(self) -> None:
        if self._link.is_registered and not self._has_parted:
            self._outbox.flush()

    def _answer(self, answer: AgentAnswer) -> None:
        self._link.request(answer, lambda _: None)

    def _end_within(self, seconds_left: float) -> None:
        """The allocation ends in so long; this agent ends itself before."""
        left_s = max(0.0, seconds_left - BEFORE_WALLTIME_S)
        self._ends_s = clock.monotonic_s() + left_s
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._end_timer = self._loop.after(left_s, lambda: self._end("walltime"))

    def _seconds_left(self) -> float | None:
        """Until it ends itself, so that what is said to fit has all of it."""
        return None if self._ends_s is None else max(0.0, self._ends_s - clock.monotonic_s())

    def _change_settings(self, value: dict[str, Any]) -> None:
        if isinstance(value.get("concurrency"), int):
            self._runner.slots.concurrency = max(0, value["concurrency"])
            self._runner.fill()
        if isinstance(value.get("seconds_left"), int | float):
            self._end_within(float(value["seconds_left"]))

    # --- the end ---------------------------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        """Tell the server what it can know, stop what runs, and end; a second call changes nothing."""
        if self._is_ending:
            return
        self._is_ending = True
        logger.info("ending: %s", reason or "by order of the server")
        self._runner.is_draining = True
        self._runner.slots.concurrency = 0
        deadline_s = clock.monotonic_s() + GOODBYE_WITHIN_S
        said = False

        def goodbye() -> None:
            nonlocal said
            if said:
                return
            said = self._has_parted = True
            self._loop.after(GOODBYE_WITHIN_S, stop_tasks)
            self._link.request(AgentGoodbye(reason=reason), lambda _: stop_tasks(), lambda _: stop_tasks())

        def tell() -> None:
            if not self._link.is_registered:
                stop_tasks()
            elif self._outbox.is_empty or clock.monotonic_s() > deadline_s:
                goodbye()
            else:
                self._loop.after(0.02, tell)

        def stop_tasks() -> None:
            for key in list(self._runner.attempts):
                self._runner.forget(key)
            self._runner.became_idle = self._loop.stop
            self._loop.after(GOODBYE_WITHIN_S, self._loop.stop)
            if not self._runner.attempts:
                self._loop.stop()

        tell()

    def _watch_idle(self) -> None:
        timeout_s = self._options.idle_timeout_s
        if timeout_s is not None:
            if self._idle is not None:
                self._idle.cancel()
            self._idle = self._loop.after(timeout_s, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if not self._runner.attempts:
            self._end("idle")

    # --- kept files ------------------------------------------------------------------------------------------------

    def _keep(self, key: Key) -> None:
        saved = load(self._runner.folders_of(key))
        if saved is not None:
            self._orders.kept[key] = saved

    def _drop_old_kept(self) -> None:
        self._loop.after(KEPT_EVERY_S, self._drop_old_kept)
        most_s = float(self._runner.around.settings.get("keep_failed_uploads_s") or 7 * 86400)
        for key, saved in list(self._orders.kept.items()):
            if seconds_since(saved.at_ms) > most_s:
                self._orders.drop_kept(key)


def lock_folder(work_dir: Path) -> int | None:
    """The descriptor that holds the folder for one agent; None when an agent has it."""
    descriptor = os.open(work_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _uid(work_dir: Path) -> str:
    """The lasting name of this agent, made at the first start in `work_dir`."""
    found = read_uid(work_dir)
    if not found:
        found = secrets.token_hex(12)
        files.write_atomically(work_dir / _UID, found.encode(), 0o600)
    return found


def read_uid(work_dir: Path) -> str:
    """The name of the agent of `work_dir`; empty when there was none."""
    try:
        return (work_dir / _UID).read_text().strip()
    except OSError:
        return ""
