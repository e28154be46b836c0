"""The ready queue in memory: pending tasks by step and by what they ask, each queue in order of priority and age.

A key is one integer, `-priority` in the high bits and the task's id in the low ones, so that a million pending tasks
cost little memory. What leaves the queue out of turn is only marked; the mark is looked at when its turn comes.
"""

from __future__ import annotations

import heapq

from scitq.model.needs import Needs

_ID_BITS = 44
_ID_MASK = (1 << _ID_BITS) - 1
NO_STEP = 0
"""The group of tasks and workers without a step (contract CRE-2)."""


def _key(task_id: int, priority: int) -> int:
    return (-priority << _ID_BITS) + task_id


class ReadyQueue:
    """Tasks in P, rebuilt from the database at start."""

    def __init__(self) -> None:
        """An empty queue."""
        self._heaps: dict[int, dict[Needs, list[int]]] = {}
        self._where: dict[int, tuple[int, Needs, int]] = {}
        self.changed: set[int] = set()
        """Groups that got tasks since the scheduler last looked."""

    def __len__(self) -> int:
        """How many tasks are ready."""
        return len(self._where)

    def __contains__(self, task_id: int) -> bool:
        """Whether the task is ready."""
        return task_id in self._where

    def add(self, task_id: int, group: int, needs: Needs, priority: int) -> None:
        """A task became pending."""
        key = _key(task_id, priority)
        self._where[task_id] = (group, needs, key)
        heapq.heappush(self._heaps.setdefault(group, {}).setdefault(needs, []), key)
        self.changed.add(group)

    def remove(self, task_id: int) -> None:
        """A task is pending no more; what is absent is fine."""
        self._where.pop(task_id, None)

    def groups(self) -> list[int]:
        """Groups that may have tasks."""
        return list(self._heaps)

    def heads(self, group: int) -> list[tuple[int, Needs]]:
        """The first task of each queue of the group as (key, needs), first to start first; ended queues are dropped."""
        queues = self._heaps.get(group, {})
        found = []
        for needs, heap in list(queues.items()):
            while heap:
                entry = self._where.get(heap[0] & _ID_MASK)
                if entry is not None and entry[2] == heap[0] and entry[1] == needs and entry[0] == group:
                    break
                heapq.heappop(heap)
            if heap:
                found.append((heap[0], needs))
            else:
                del queues[needs]
        if not queues:
            self._heaps.pop(group, None)
        found.sort(key=lambda head: head[0])
        return found

    def pop(self, group: int, needs: Needs) -> int:
        """Take the first task of a queue whose head was just seen; its id."""
        task_id = heapq.heappop(self._heaps[group][needs]) & _ID_MASK
        del self._where[task_id]
        return task_id

    def open_count(self, group: int) -> int:
        """Ready tasks of a group; for recruiters."""
        return sum(1 for entry in self._where.values() if entry[0] == group)

    def asked(self, group: int) -> dict[Needs, int]:
        """What the ready tasks of a group ask for, and how many do; tasks that left out of turn may still be counted."""
        return {asked: len(heap) for asked, heap in self._heaps.get(group, {}).items()}

    def position(self, task_id: int) -> int:
        """How many ready tasks of the same group come before this one."""
        entry = self._where.get(task_id)
        if entry is None:
            return 0
        return sum(1 for other in self._where.values() if other[0] == entry[0] and other[2] < entry[2])

    def needs_of(self, task_id: int) -> Needs | None:
        """What a ready task asks."""
        entry = self._where.get(task_id)
        return entry[1] if entry else None
