"""How many tasks run at once, which is next, whether what it asks for is free, and which GPUs it gets.

The server reserves what tasks ask for, but not for those that a worker only prepares: when they start is decided here.
"""

from __future__ import annotations

import heapq
import itertools

from scitq.agent.attempt import Attempt
from scitq.model import needs
from scitq.model.needs import Capacity, Needs
from scitq.protocol.messages.agent import Hardware


def _needs(attempt: Attempt) -> Needs:
    return needs.of_spec(attempt.assignment.spec)


class Slots:
    """`concurrency` may change at any time; what runs goes on."""

    def __init__(self, hardware: Hardware) -> None:
        self.concurrency = 1
        self._waiting: list[tuple[int, int, Attempt]] = []
        self._count = itertools.count()
        self._running: set[Attempt] = set()
        self._free_gpus = list(range(hardware.gpus))
        self._free = Capacity(hardware.cpus, hardware.mem_gib, hardware.gpus, hardware.disk_gb, dict(hardware.requests))

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._running)

    def wait(self, attempt: Attempt) -> None:
        """Queue up, by priority, then by arrival."""
        heapq.heappush(self._waiting, (-attempt.assignment.priority, next(self._count), attempt))

    def take(self) -> Attempt | None:
        """The next one that may start, with a slot and its GPUs; None when there is none or no room."""
        if not self._waiting or len(self._running) >= self.concurrency:
            return None
        attempt = self._waiting[0][2]
        wanted = attempt.assignment.spec.gpus or 0
        if self._running and (wanted > len(self._free_gpus) or self._free.misses(_needs(attempt))):
            return None
        heapq.heappop(self._waiting)
        attempt.gpus, self._free_gpus = tuple(self._free_gpus[:wanted]), self._free_gpus[wanted:]
        self._add(attempt)
        return attempt

    def _add(self, attempt: Attempt) -> None:
        self._running.add(attempt)
        self._free = self._free.less(_needs(attempt))

    def occupy(self, attempt: Attempt) -> None:
        """An adopted attempt has its slot already."""
        self._free_gpus = [gpu for gpu in self._free_gpus if gpu not in attempt.gpus]
        self._add(attempt)

    def drop(self, attempt: Attempt) -> None:
        """It needs no slot (any more)."""
        if attempt in self._running:
            self._running.discard(attempt)
            self._free = self._free.less(_needs(attempt), -1)
            self._free_gpus = sorted([*self._free_gpus, *attempt.gpus])
        elif any(entry[2] is attempt for entry in self._waiting):
            self._waiting = [entry for entry in self._waiting if entry[2] is not attempt]
            heapq.heapify(self._waiting)
