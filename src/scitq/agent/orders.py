"""What the server orders: for one attempt, or for the whole agent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from scitq.agent import checking
from scitq.agent.attempt import Attempt, Phase, Saved, restored
from scitq.agent.data import open_cache
from scitq.agent.keeper.messages import Key
from scitq.agent.outbox import Outbox
from scitq.agent.runner import Runner
from scitq.model.lifecycle import TaskEvent
from scitq.protocol.messages.agent import AgentAnswer, Order
from scitq.util import files

logger = logging.getLogger(__name__)


class Orders:
    """Carries them out, in the loop's thread. kept: files of failed uploads."""

    def __init__(
        self,
        runner: Runner,
        outbox: Outbox,
        kept: dict[Key, Saved],
        *,
        answer: Callable[[AgentAnswer], None],
        settings: Callable[[dict[str, Any]], None],
        quit_agent: Callable[[str], None],
    ) -> None:
        self._runner = runner
        self._outbox = outbox
        self.kept = kept
        self._answer = answer
        self._settings = settings
        self._quit = quit_agent

    def carry_out(self, order: Order) -> None:
        """One order; it may come twice."""
        key = order.task_id, order.attempt
        attempt = self._runner.attempts.get(key)
        match order.kind:
            case "kill" | "stop" | "freeze" | "thaw":
                if attempt is not None:
                    self._of_attempt(order, attempt)
            case "cancel" | "forget":
                self._runner.forget(key)
                self.drop_kept(key)
            case "upload":
                self.upload_again(key)
            case "drain":
                self._runner.is_draining = True
            case "resume":
                self._runner.is_draining = False
            case "quit":
                self._quit(order.reason)
            case "settings":
                self._settings(order.value or {})
            case "cache_list" | "cache_clear" | "check":
                self._runner.in_thread(
                    lambda: self._ask(order),
                    lambda result: self._answer(AgentAnswer(order_id=order.order_id, result=result)),
                    lambda error: self._answer(AgentAnswer(order_id=order.order_id, error=str(error) or type(error).__name__)),
                )
            case _:
                logger.warning("the order %r is not known here; this agent is older than the server", order.kind)

    def _of_attempt(self, order: Order, attempt: Attempt) -> None:
        if order.kind in {"kill", "stop"}:
            self._runner.end(attempt, order.kind, order.reason or ("killed" if order.kind == "kill" else "stopped"))
            return
        executor = self._runner.executor_of(attempt)
        wants_frozen = order.kind == "freeze"
        if executor is None or attempt.phase is not Phase.RUNNING or attempt.wish or attempt.is_frozen == wants_frozen:
            return
        executor.freeze(attempt.key, wants_frozen)
        attempt.is_frozen = wants_frozen
        self._outbox.add(attempt.key, TaskEvent.FREEZE if wants_frozen else TaskEvent.RESUME_RUNNING)

    def upload_again(self, key: Key) -> None:
        """Try once more what failed before; also when the order got lost and the server only says that it wants the attempt."""
        if key in self._runner.attempts:
            return
        folders = self._runner.folders_of(key)
        saved = self.kept.pop(key, None)
        if saved is None or not folders.output.is_dir():
            self._outbox.add(
                key, TaskEvent.UPLOAD_FAILED, is_final=True, reason="upload: the files are no longer on the worker", cause="upload"
            )
            return
        attempt = restored(saved, folders)
        self._runner.attempts[key] = attempt
        log = self._outbox.log(key, folders.log)
        log.sent = log.file_bytes = saved.log_bytes  # the server has all of it
        self._runner.upload(attempt)

    def drop_kept(self, key: Key) -> None:
        """Delete the files of a failed upload, if there are any."""
        if self.kept.pop(key, None) is not None:
            root = self._runner.folders_of(key).root
            self._runner.in_thread(lambda: files.remove_tree(root), lambda _: None, lambda error: logger.warning("%s", error))

    def _ask(self, order: Order) -> object:
        """In a thread: what the order wants to know."""
        around = self._runner.around
        match order.kind:
            case "cache_list":
                return open_cache(around.work_dir, around.settings).list()
            case "cache_clear":
                return open_cache(around.work_dir, around.settings).clear()
            case _:
                return checking.check(str(order.value or ""), around.data)
