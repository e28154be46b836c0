"""The ready queue in memory: pending tasks by step and by what they ask, each queue in order of priority and age.

A key is one integer, `-priority` in the high bits and the task's id in the low ones, so that a million pending tasks
cost little memory. What leaves the queue out of turn is only marked; the mark is looked at when its turn comes.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from scitq.model.needs import Needs

_ID_BITS = 44
_ID_MASK = (1 << _ID_BITS) - 1
NO_STEP = 0
"""The group of tasks and workers without a step (contract CRE-2)."""


def _key(task_id: int, priority: int) -> int:
    return (-priority << _ID_BITS) + task_id


class _Queue:
    """Tasks of one group that ask the same."""

    __slots__ = ("group", "heap", "needs")

    def __init__(self, group: int, needs: Needs) -> None:
        self.group = group
        self.needs = needs
        self.heap: list[int] = []


class ReadyQueue:
    """Tasks in P, rebuilt from the database at start."""

    def __init__(self) -> None:
        """An empty queue."""
        self._queues: dict[int, dict[Needs, _Queue]] = {}
        self._keys: dict[int, int] = {}
        self._places: dict[int, _Queue] = {}
        self.changed: set[int] = set()
        """Groups that got tasks since the scheduler last looked."""

    def __len__(self) -> int:
        """How many tasks are ready."""
        return len(self._keys)

    def __contains__(self, task_id: int) -> bool:
        """Whether the task is ready."""
        return task_id in self._keys

    def add(self, task_ids: Sequence[int], group: int, needs: Needs, priority: int) -> None:
        """Tasks became pending; their ids ascend."""
        queues = self._queues.setdefault(group, {})
        queue = queues.get(needs)
        if queue is None:
            queue = queues[needs] = _Queue(group, needs)
        keys = [_key(task_id, priority) for task_id in task_ids] if priority else task_ids
        self._keys.update(zip(task_ids, keys, strict=True))
        self._places.update(dict.fromkeys(task_ids, queue))
        if queue.heap:
            for key in keys:
                heapq.heappush(queue.heap, key)
        else:
            queue.heap.extend(keys)
        self.changed.add(group)

    def remove(self, task_id: int) -> None:
        """A task is pending no more; what is absent is fine."""
        self._keys.pop(task_id, None)
        self._places.pop(task_id, None)

    def heads(self, group: int) -> list[tuple[int, Needs]]:
        """The first task of each queue of the group as (key, needs), first to start first; ended queues are dropped."""
        queues = self._queues.get(group, {})
        found = []
        for needs, queue in list(queues.items()):
            heap = queue.heap
            while heap:
                task_id = heap[0] & _ID_MASK
                if self._keys.get(task_id) == heap[0] and self._places[task_id] is queue:
                    break
                heapq.heappop(heap)
            if heap:
                found.append((heap[0], needs))
            else:
                del queues[needs]
        if not queues:
            self._queues.pop(group, None)
        found.sort(key=lambda head: head[0])
        return found

    def pop(self, group: int, needs: Needs) -> int:
        """Take the first task of a queue whose head was just seen; its id."""
        task_id = heapq.heappop(self._queues[group][needs].heap) & _ID_MASK
        self.remove(task_id)
        return task_id

    def asked(self, group: int) -> dict[Needs, int]:
        """What the ready tasks of a group ask for, and how many do; tasks that left out of turn may still be counted."""
        return {asked: len(queue.heap) for asked, queue in self._queues.get(group, {}).items()}

    def position(self, task_id: int) -> int:
        """How many ready tasks of the same group come before this one; may be asked in any thread."""
        place, own = self._places.get(task_id), self._keys.get(task_id)
        if place is None or own is None:
            return 0
        before = [key for queue in list(self._queues.get(place.group, {}).values()) for key in list(queue.heap) if key < own]
        return sum(1 for key in before if self._keys.get(key & _ID_MASK) == key)

    def needs_of(self, task_id: int) -> Needs | None:
        """What a ready task asks; may be asked in any thread."""
        place = self._places.get(task_id)
        return place.needs if place else None
