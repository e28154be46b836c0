"""The way of every attempt through this worker: accept, fetch, wait for a slot, run, upload, clean up.

All of it happens in the loop's thread; what is slow runs in `workers` and comes back by `Loop.post` (agent/upkeep).
"""

from __future__ import annotations

import logging
import signal
from typing import Any

import msgspec

from scitq.agent import command
from scitq.agent.attempt import Attempt, Phase, merged, save
from scitq.agent.executors.base import Ended, ImageError, Job
from scitq.agent.keeper.messages import Key
from scitq.agent.steps import fetch, ship
from scitq.agent.upkeep import Upkeep
from scitq.errors import CancelledError, DiskFullError, ScitqError
from scitq.model.lifecycle import TaskEvent
from scitq.model.task import Use
from scitq.protocol.messages.agent import Assignment
from scitq.util import clock

logger = logging.getLogger(__name__)
_encoder = msgspec.msgpack.Encoder()

DEFAULT_LOG_CAP = 10 * 1000**3


class Runner(Upkeep):
    """Is the Sink of all executors."""

    # --- accept and fetch ------------------------------------------------------------------------------------------

    def offer(self, assignment: Assignment) -> None:
        """Take it, or decline with the reason."""
        key = assignment.task_id, assignment.attempt
        if key in self.attempts:
            return
        attempt = Attempt(assignment, self.folders_of(key))
        refusal = self._refusal(attempt)
        if refusal:
            self._out.add(key, TaskEvent.DECLINE, reason=refusal)
            return
        self.attempts[key] = attempt
        self._out.add(key, TaskEvent.ACCEPT)
        if attempt.needs_fetch:
            self._preparations.add(attempt)
            return
        attempt.phase = Phase.FETCHING
        self._out.add(key, TaskEvent.FETCH)
        try:
            self._spare.make(attempt.folders)
        except OSError as error:
            self._fail(attempt, error)
            return
        self._fetched(attempt, False)

    def _prepare(self, attempt: Attempt) -> None:
        self._out.add(attempt.key, TaskEvent.FETCH)

        def done(skip: bool) -> None:
            self._preparations.ended(attempt)
            self._fetched(attempt, skip)

        def failed(error: BaseException) -> None:
            self._preparations.ended(attempt)
            self._fail(attempt, error)

        self.in_thread(lambda: self._fetch(attempt), done, failed)

    def _refusal(self, attempt: Attempt) -> str:
        if self.is_draining:
            return "this worker takes no more tasks"
        if attempt.is_bare and (self.bare is None or not self.around.allows_bare):
            return "this worker runs no bare tasks"
        if not attempt.is_bare and self.containers is None:
            return "this worker has no container runtime"
        return ""

    def _fetch(self, attempt: Attempt) -> bool:
        """In a thread: bring all that the task needs. True when its results are there already."""
        spec, cancel, data = attempt.assignment.spec, attempt.cancel, self.around.data
        if spec.skip_if_exists and ship.is_complete(attempt.assignment, data, cancel):
            return True
        attempt.folders.make()
        executor = self.executor_of(attempt)
        assert executor is not None
        if not attempt.is_bare:
            executor.prepare(spec.container, self.around.registries, cancel)
            attempt.folders.temp.chmod(0o1777)
            for folder in (attempt.folders.input, attempt.folders.output):
                folder.chmod(0o777)  # a container's user can be anybody; root of the task is closed to other accounts
        if spec.inputs or spec.resources:
            prepared = fetch.prepare(attempt.assignment, attempt.folders, data, self._progress(attempt), cancel)
            attempt.has_lease = True
            attempt.resource = prepared.resource_view
            attempt.use = merged(attempt.use, Use(downloaded_bytes=prepared.downloaded_bytes))
        cancel.check()
        return False

    def _fetched(self, attempt: Attempt, is_skipped: bool) -> None:
        if attempt.is_unwanted or attempt.wish:
            self._fail(attempt, CancelledError("cancelled"))
            return
        if is_skipped:
            attempt.phase = Phase.OVER
            self._note(attempt, "the output holds a completed result already: skipped")
            self._out.add(attempt.key, TaskEvent.SKIP, is_final=True, exit_status=0)
            return
        attempt.phase = Phase.READY
        self._out.add(attempt.key, TaskEvent.FETCHED)
        self.slots.wait(attempt)
        self.fill()

    def _fail(self, attempt: Attempt, error: BaseException) -> None:
        """It ends before its command was started."""
        if attempt.phase is Phase.OVER:
            return
        attempt.phase = Phase.OVER
        self.slots.drop(attempt)
        if attempt.is_unwanted:
            self._discard(attempt)
            return
        cause, is_own_fault = "fetch", isinstance(error, (OSError, DiskFullError))
        reason = error.message if isinstance(error, ScitqError) else str(error)
        if attempt.wish:
            cause, reason, is_own_fault = "killed", attempt.wish_reason or "killed", False
        elif isinstance(error, ImageError):
            cause = "image"
        elif not isinstance(error, (ScitqError, OSError)):
            logger.error("task %d: %s", attempt.key[0], reason, exc_info=error)
        self._note(attempt, f"not run: {reason}")
        self._out.add(attempt.key, TaskEvent.FAIL, is_final=True, reason=reason, cause=cause, is_own_fault=is_own_fault)
        self.fill()

    # --- run -------------------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """Start what has a slot now."""
        while (attempt := self.slots.take()) is not None:
            try:
                self._start(attempt)
            except (ScitqError, OSError) as error:
                self._fail(attempt, error)

    def _start(self, attempt: Attempt) -> None:
        around, folders = self.around, attempt.folders
        executor = self.executor_of(attempt)
        assert executor is not None
        resource = attempt.resource or folders.resource
        program = command.program_of(attempt.assignment.spec, folders)
        env = command.environment_of(attempt.assignment, folders, resource, around.hardware, self.slots.concurrency)
        if attempt.gpus:
            env.setdefault("CUDA_VISIBLE_DEVICES", ",".join(map(str, attempt.gpus)))
        job = Job(
            attempt.key,
            attempt.assignment,
            folders,
            resource,
            program,
            env,
            int(around.settings.get("max_task_log_bytes") or DEFAULT_LOG_CAP),
            str(around.settings.get("network") or "bridge"),
            _encoder.encode(attempt.assignment) if attempt.is_bare else b"",
        )
        attempt.phase = Phase.STARTING
        if not attempt.is_bare or attempt.has_lease or attempt.assignment.spec.output or attempt.assignment.spec.publish:
            save(attempt, "running", executor.name, clock.now_ms())
        executor.start(job)

    def started(self, key: Key) -> None:
        """From an executor, in any thread."""
        attempt = self.attempts.get(key)
        if attempt is not None and attempt.is_bare:
            self._started(key)  # the bare executor speaks in the loop's thread
        else:
            self._loop.post(lambda: self._started(key))

    def _started(self, key: Key) -> None:
        attempt = self.attempts.get(key)
        executor = self.executor_of(attempt) if attempt else None
        if attempt is None or executor is None or attempt.phase is not Phase.STARTING:
            return
        attempt.phase = Phase.RUNNING
        self._out.add(key, TaskEvent.START)
        if attempt.wish or attempt.is_unwanted:
            executor.signal(key, signal.SIGTERM if attempt.wish == "stop" else signal.SIGKILL)
        self.watch_time(attempt)

    def watch_time(self, attempt: Attempt) -> None:
        """End it when it has run as long as it may."""
        limit_s = attempt.assignment.spec.time_limit_s
        if limit_s:
            left_s = max(0.0, limit_s - attempt.age_s)
            attempt.timers.append(self._loop.after(left_s, lambda: self.end(attempt, "limit", "time limit")))

    def end(self, attempt: Attempt, wish: str, reason: str) -> None:
        """Make a running attempt end: `stop` by SIGTERM and half a minute later, `kill` and `limit` by SIGKILL at once."""
        executor = self.executor_of(attempt)
        if executor is None or attempt.wish in {"kill", "limit"}:
            return
        attempt.wish, attempt.wish_reason = wish, reason
        if attempt.phase in {Phase.STARTING, Phase.RUNNING}:
            if attempt.is_frozen:
                executor.freeze(attempt.key, False)
                attempt.is_frozen = False
            executor.signal(attempt.key, signal.SIGTERM if wish == "stop" else signal.SIGKILL)
            if wish == "stop":
                attempt.timers.append(self._loop.after(30.0, lambda: executor.signal(attempt.key, signal.SIGKILL)))
        elif attempt.phase in {Phase.ACCEPTED, Phase.READY}:
            self._fail(attempt, CancelledError(reason))
        elif attempt.phase is not Phase.OVER:
            attempt.cancel.cancel()

    def grown(self, key: Key, log_bytes: int) -> None:
        """From an executor, in any thread."""
        self._loop.post(lambda: self._grown(key, log_bytes))

    def _grown(self, key: Key, log_bytes: int) -> None:
        attempt = self.attempts.get(key)
        if attempt is not None and attempt.phase in {Phase.STARTING, Phase.RUNNING} and not attempt.is_unwanted:
            self._out.log(key, attempt.folders.log).file_bytes = log_bytes
            self._out.log_changed(key)

    def ended(self, ended: Ended) -> None:
        """From an executor, in any thread."""
        attempt = self.attempts.get(ended.key)
        if attempt is not None and attempt.is_bare:
            self._ended(ended)
        else:
            self._loop.post(lambda: self._ended(ended))

    def _ended(self, ended: Ended) -> None:
        attempt = self.attempts.get(ended.key)
        if attempt is None or attempt.phase not in {Phase.STARTING, Phase.RUNNING}:
            return
        attempt.stop_timers()
        self.slots.drop(attempt)
        if attempt.is_unwanted:
            self._discard(attempt)
            return
        attempt.conclude(ended)
        log = self._out.log(attempt.key, attempt.folders.log)
        if ended.log is None:
            log.file_bytes = ended.log_bytes
        else:
            log.tail = ended.log
        if log.size:
            self._out.log_changed(attempt.key)
        if attempt.cause and attempt.cause != "exit":
            self._note(attempt, attempt.reason)
        if attempt.phase is Phase.STARTING:
            attempt.phase = Phase.OVER
            self._out.add(
                attempt.key, TaskEvent.FAIL, is_final=True, reason=attempt.reason, cause=attempt.cause, is_own_fault=ended.is_own_fault
            )
        elif ship.has_output(attempt.assignment.spec, succeeded=attempt.succeeded):
            self._out.add(attempt.key, TaskEvent.EXITED_WELL if attempt.succeeded else TaskEvent.EXITED_BADLY, **self._end_fields(attempt))
            self.upload(attempt)
        else:
            attempt.phase = Phase.OVER
            if attempt.folders.state.exists():
                self.save(attempt, "over")
            event = TaskEvent.ENDED_WELL if attempt.succeeded else TaskEvent.ENDED_BADLY
            self._out.add(attempt.key, event, is_final=True, is_own_fault=ended.is_own_fault, **self._end_fields(attempt))
        self.fill()

    def _end_fields(self, attempt: Attempt) -> dict[str, Any]:
        return {"exit_status": attempt.exit_status, "reason": attempt.reason, "use": attempt.use, "cause": attempt.cause}

    # --- upload ----------------------------------------------------------------------------------------------------

    def upload(self, attempt: Attempt) -> None:
        """Upload in a thread what it made."""
        attempt.phase = Phase.SHIPPING if attempt.succeeded else Phase.SHIPPING_FAILED
        self.save(attempt, "exited")
        if not self._is_known:
            self._early.append(attempt)
            return
        self._upload(attempt)

    def known(self) -> None:
        """The server has told its storages: what ended before (after a restart) can be uploaded now."""
        self._is_known = True
        early, self._early = self._early, []
        for attempt in early:
            if attempt.is_unwanted:
                self._discard(attempt)
            else:
                self._upload(attempt)

    def _upload(self, attempt: Attempt) -> None:
        executor = self.executor_of(attempt)

        def work() -> ship.Shipped:
            if executor is not None and not attempt.is_bare:
                executor.fix_permissions(attempt.folders.output, attempt.assignment.spec.container)
            return ship.ship(
                attempt.assignment, attempt.folders, self.around.data, self._progress(attempt), attempt.cancel, attempt.succeeded
            )

        self.in_thread(work, lambda shipped: self._shipped(attempt, shipped), lambda error: self._not_shipped(attempt, error))

    def _shipped(self, attempt: Attempt, shipped: ship.Shipped) -> None:
        if attempt.is_unwanted:
            self._discard(attempt)
            return
        attempt.phase, attempt.keeps_files = Phase.OVER, False
        attempt.use = merged(attempt.use, Use(uploaded_bytes=shipped.uploaded_bytes))
        for warning in shipped.warnings:
            self._note(attempt, f"warning: {warning}")
        self.save(attempt, "over")
        self._out.add(attempt.key, TaskEvent.UPLOADED, is_final=True, **self._end_fields(attempt))

    def _not_shipped(self, attempt: Attempt, error: BaseException) -> None:
        if attempt.is_unwanted:
            self._discard(attempt)
            return
        attempt.phase, attempt.keeps_files = Phase.OVER, True
        text = error.message if isinstance(error, ScitqError) else str(error)
        if attempt.wish and isinstance(error, CancelledError):
            text = f"{attempt.wish_reason or 'killed'} before it had ended"
        if not isinstance(error, (ScitqError, OSError)):
            logger.error("task %d: upload: %s", attempt.key[0], text, exc_info=error)
        reason = f"upload: {text}" + (f" (before that: {attempt.reason})" if attempt.reason else "")
        self._note(attempt, f"the output could not be uploaded, and is kept on the worker: {text}")
        self.save(attempt, "kept")
        self.files_kept(attempt.key)
        self._out.add(
            attempt.key, TaskEvent.UPLOAD_FAILED, is_final=True, exit_status=attempt.exit_status, reason=reason, use=attempt.use,
            cause="upload" if attempt.succeeded else attempt.cause,
        )  # fmt: skip
