"""Reading tasks: lists, details, logs, waits. All of it in reading threads."""

from __future__ import annotations

import struct
from collections import deque

from scitq.broker import explain
from scitq.broker.context import Park, Reading
from scitq.broker.dispatch import reads
from scitq.broker.store import creation, logs, task_reads, tasks
from scitq.errors import NotFoundError, UsageError
from scitq.model.lifecycle import FINAL, NAMES, TaskStatus
from scitq.protocol.messages import task as m

_RECORD = struct.Struct(">BI")
_MOST_SHOWN = 1000
_WAIT_PAUSE_S = 0.1
_FEW = 64


@reads(m.TaskList)
def list_tasks(reading: Reading, message: m.TaskList) -> m.TaskRows:
    """One page of tasks."""
    known = {status.value for status in TaskStatus}
    for letter in message.status:
        if letter not in known:
            listed = ", ".join(f"{status.value} {name}" for status, name in NAMES.items())
            raise UsageError(f"{letter!r} is no status; known are {listed}")
    if message.limit < 0 or message.offset < 0:
        raise UsageError("--limit and --offset are not negative")
    _check_ranges(message.ids or [])
    if len(message.labels) > _FEW:
        raise UsageError(f"at most {_FEW} labels filter a list")
    found = task_reads.listed(reading.db, message)
    return m.TaskRows(rows=found, total=task_reads.total(reading.db, message) if message.with_total else None)


def _check_ranges(ranges: list[tuple[int, int, int]]) -> None:
    if len(ranges) > 10_000 or any(stride < 1 for _, _, stride in ranges):
        raise UsageError("at most 10000 ranges of ids, with strides of at least 1")


@reads(m.TaskShow)
def show(reading: Reading, message: m.TaskShow) -> m.TasksDetails:
    """All that is known of some tasks."""
    if len(message.ids) > _MOST_SHOWN:
        raise UsageError(f"at most {_MOST_SHOWN} tasks at a time")
    found = []
    for task_id in message.ids:
        progress = dict(reading.broker.progress.get(task_id, {}))
        details = task_reads.details(reading.db, task_id, reading.now_ms, progress)
        if details is None:
            raise NotFoundError(f"there is no task {task_id}")
        found.append(details)
    return m.TasksDetails(tasks=found)


@reads(m.TaskCheckKeys)
def check_keys(reading: Reading, message: m.TaskCheckKeys) -> m.KeysChecked:
    """Before a batch of many requests: which keys would conflict."""
    return m.KeysChecked(taken=creation.other_content(reading.db, reading.who.user_id, message.digests))


@reads(m.TaskFind)
def find(reading: Reading, message: m.TaskFind) -> m.TaskIds:
    """Ids of a selection."""
    _check_ranges(message.ranges)
    ids = task_reads.find(reading.db, message.ranges)
    known = set(ids)
    for first, last, _ in message.ranges:
        if first == last and first not in known:
            raise NotFoundError(f"there is no task {first}")
    if message.is_last:
        last_id = task_reads.last_of(reading.db, reading.who.user_id)
        if last_id is None:
            raise NotFoundError("you have no task yet")
        ids = sorted({*ids, last_id})
    if not ids:
        raise NotFoundError("the selection holds no task")
    return m.TaskIds(ids=ids)


@reads(m.TaskCount)
def count(reading: Reading, message: m.TaskCount) -> m.QueueCounts:
    """Tasks by status."""
    return m.QueueCounts(counts=tasks.counts(reading.db, step_id=message.step_id, workflow_id=message.workflow_id))


@reads(m.TaskWait)
def wait(reading: Reading, message: m.TaskWait) -> m.TaskWaited | Park:
    """Answer when the condition holds or the time is over."""
    _check_ranges(message.ranges)
    named = [one for one in message.ranges if one[0] == one[1]]
    for missing in {first for first, _, _ in named} - set(task_reads.find(reading.db, named)):
        raise NotFoundError(f"there is no task {missing}")
    counts, bad, good, moved = task_reads.standing(reading.db, message.ranges)
    total = sum(counts.values())
    if total == 0:
        is_one = len(message.ranges) == 1 and message.ranges[0][0] == message.ranges[0][1]
        raise NotFoundError(f"there is no task {message.ranges[0][0]}" if is_one else "the selection holds no task")
    ended = sum(counts.get(status.value, 0) for status in FINAL)
    is_over = ended > 0 if message.is_any else ended == total
    until_s = reading.arrived_s + min(max(message.at_most_s, 0.0), 60.0)
    is_news = bool(message.unless_counts) and message.unless_counts != counts
    if is_over or is_news or reading.now_s >= until_s:
        return m.TaskWaited(is_over=is_over, counts=counts, failed=bad, ended=sorted(bad + good), successors=moved)
    ids = [first for first, last, _ in message.ranges if first == last]
    if len(ids) == len(message.ranges) and len(ids) <= _FEW:
        watched = {*ids, *moved.values()}
        return Park(frozenset(f"task:{task_id}" for task_id in watched), until_s)
    return Park(frozenset({"ended"}), until_s, at_least_s=_WAIT_PAUSE_S)


@reads(m.TaskOutput)
def output(reading: Reading, message: m.TaskOutput) -> m.TaskLog | Park:
    """A piece of the log of a task's present attempt."""
    task = tasks.get(reading.db, message.id)
    if task is None:
        raise NotFoundError(f"there is no task {message.id}")
    stored = logs.attempts(reading.db, task.id)
    attempt = stored[-1][0] if stored else task.attempt
    size = stored[-1][1] if stored else 0
    offset = max(0, message.offset)
    if message.tail_lines is not None:
        offset = _tail_offset(reading, task.id, attempt, size, message.tail_lines, set(message.streams))
    is_ended = task.status in FINAL
    data = reading.broker.logs.read(reading.db, task.id, attempt, offset, max(1, min(message.most_bytes, 8 << 20)))
    until_s = reading.arrived_s + min(max(message.at_most_s, 0.0), 60.0)
    if not data and not is_ended and reading.now_s < until_s:
        return Park(frozenset({f"task:{task.id}", f"log:{task.id}"}), until_s)
    return m.TaskLog(data=data, next_offset=offset + len(data), size=size, is_ended=is_ended and offset + len(data) >= size)


def _tail_offset(reading: Reading, task_id: int, attempt: int, size: int, lines: int, streams: set[int]) -> int:
    """The offset of a whole record at or before the last `lines` lines of the streams; who reads cuts off what is too much."""
    if lines <= 0:
        return size
    starts: deque[tuple[int, int]] = deque()
    counted = 0
    position = 0
    piece = 4 << 20
    while position < size:
        data = reading.broker.logs.read(reading.db, task_id, attempt, position, piece)
        used = 0
        while used + _RECORD.size <= len(data):
            stream, length = _RECORD.unpack_from(data, used)
            end = used + _RECORD.size + length
            if end > len(data):
                piece = max(4 << 20, _RECORD.size + length)
                break
            if stream in streams:
                found = data.count(b"\n", used + _RECORD.size, end)
                starts.append((position + used, found))
                counted += found
                while starts and counted - starts[0][1] > lines:
                    counted -= starts.popleft()[1]
            used = end
        if used == 0 and (piece <= len(data) or position + len(data) >= size):
            break
        position += used
    return starts[0][0] if starts else size


@reads(m.TaskExplain)
def explain_task(reading: Reading, message: m.TaskExplain) -> m.TaskExplained:
    """Why a task is where it is."""
    return explain.explain(reading, message.id)
