"""After a restart: what the keeper, the containers and the journals still hold is taken up again (contract SRV-3)."""

from __future__ import annotations

import base64
import logging
from contextlib import suppress

import msgspec

from scitq.agent.attempt import Attempt, Phase, Saved, load, restored
from scitq.agent.executors.base import Adopted, Ended, Executor
from scitq.agent.folders import TaskFolders
from scitq.agent.keeper.messages import Key
from scitq.agent.outbox import Outbox
from scitq.agent.runner import Runner
from scitq.agent.steps import fetch
from scitq.model.lifecycle import TaskEvent
from scitq.protocol.messages.agent import Assignment
from scitq.util import clock, files

logger = logging.getLogger(__name__)
_decoder = msgspec.msgpack.Decoder(Assignment)


def restore(runner: Runner, outbox: Outbox, executors: list[Executor]) -> dict[Key, Saved]:
    """Take up what there is; returns the journals of attempts whose files are only kept for another upload.

    The whole way of each attempt is told again: the server lets be what it knows already.
    """
    adopted = {found.key: (found, executor) for executor in executors for found in executor.adopt()}
    journals: dict[Key, Saved] = {}
    for root in runner.tasks_folder.iterdir():
        folders = TaskFolders(root)
        saved = load(folders)
        if saved is not None:
            journals[saved.assignment.task_id, saved.assignment.attempt] = saved
        elif _key(root.name) not in adopted:
            with suppress(OSError):
                files.remove_tree(root)
    for key, (found, executor) in adopted.items():
        _adopt(runner, outbox, found, executor, journals.pop(key, None))
    kept: dict[Key, Saved] = {}
    for key, saved in journals.items():
        if saved.stage == "kept":
            kept[key] = saved
        else:
            _resume(runner, outbox, key, saved)
    if adopted or journals:
        logger.info("taken up after a restart: %d running or ended, %d with a journal", len(adopted), len(journals))
    return kept


def _adopt(runner: Runner, outbox: Outbox, found: Adopted, executor: Executor, saved: Saved | None) -> None:
    folders = runner.folders_of(found.key)
    if saved is not None:
        attempt = restored(saved, folders)
    elif found.blob:
        attempt = Attempt(_decoder.decode(found.blob), folders)
    else:  # a container of which nothing is known any more
        executor.freeze(found.key, False)
        executor.signal(found.key, 9)
        executor.release(found.key)
        return
    if saved is not None and saved.stage != "running":
        executor.release(found.key)
        _resume(runner, outbox, found.key, saved)
        return
    if attempt.has_lease:
        fetch.adopt(folders, runner.around.data)
    attempt.phase, attempt.age_s = Phase.RUNNING, found.age_s
    runner.attempts[found.key] = attempt
    runner.slots.occupy(attempt)
    _tell_way(outbox, found.key)
    if found.is_running:
        runner.watch_time(attempt)


def _resume(runner: Runner, outbox: Outbox, key: Key, saved: Saved) -> None:
    folders = runner.folders_of(key)
    attempt = restored(saved, folders)
    runner.attempts[key] = attempt
    _tell_way(outbox, key)
    log = outbox.log(key, folders.log)
    if folders.log.exists():
        log.file_bytes = folders.log.stat().st_size
    log.tail = base64.b64decode(saved.tail)
    outbox.log_changed(key)
    attempt.phase = Phase.RUNNING
    if attempt.has_lease:
        fetch.adopt(folders, runner.around.data)
    if saved.stage == "running":
        gone = "the agent was restarted, and what ran is gone"
        runner.ended(Ended(key, None, gone, "lost", is_own_fault=True, log_bytes=log.file_bytes))
        return
    event = TaskEvent.EXITED_WELL if attempt.succeeded else TaskEvent.EXITED_BADLY
    end = {"exit_status": attempt.exit_status, "reason": attempt.reason, "use": attempt.use, "cause": attempt.cause}
    if saved.stage == "exited":
        outbox.add(key, event, **end)  # type: ignore[arg-type] # the fields of an end
        runner.upload(attempt)
        return
    attempt.phase = Phase.OVER
    if saved.assignment.spec.output or (saved.assignment.spec.publish and attempt.succeeded):
        outbox.add(key, event, **end)  # type: ignore[arg-type] # the fields of an end
        outbox.add(key, TaskEvent.UPLOADED, is_final=True, **end)  # type: ignore[arg-type] # the fields of an end
    else:
        ended = TaskEvent.ENDED_WELL if attempt.succeeded else TaskEvent.ENDED_BADLY
        outbox.add(key, ended, is_final=True, **end)  # type: ignore[arg-type] # the fields of an end


def _tell_way(outbox: Outbox, key: Key) -> None:
    for event in (TaskEvent.ACCEPT, TaskEvent.FETCH, TaskEvent.FETCHED, TaskEvent.START):
        outbox.add(key, event)


def _key(name: str) -> Key | None:
    task, _, attempt = name.partition("-")
    return (int(task), int(attempt)) if task.isdigit() and attempt.isdigit() else None


def seconds_since(at_ms: int) -> float:
    """Since a journal was written, by this machine's clock alone."""
    return max(0.0, (clock.now_ms() - at_ms) / 1000)
