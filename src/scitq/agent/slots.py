"""How many tasks run at once, which is next, and which GPUs each gets."""

from __future__ import annotations

import heapq
import itertools

from scitq.agent.attempt import Attempt


class Slots:
    """`concurrency` may change at any time; what runs goes on."""

    def __init__(self, gpus: int) -> None:
        self.concurrency = 1
        self._waiting: list[tuple[int, int, Attempt]] = []
        self._count = itertools.count()
        self._running: set[Attempt] = set()
        self._free_gpus = list(range(gpus))

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
        if wanted > len(self._free_gpus) and self._running:
            return None
        heapq.heappop(self._waiting)
        attempt.gpus, self._free_gpus = tuple(self._free_gpus[:wanted]), self._free_gpus[wanted:]
        self._running.add(attempt)
        return attempt

    def occupy(self, attempt: Attempt) -> None:
        """An adopted attempt has its slot already."""
        self._free_gpus = [gpu for gpu in self._free_gpus if gpu not in attempt.gpus]
        self._running.add(attempt)

    def drop(self, attempt: Attempt) -> None:
        """It needs no slot (any more)."""
        if attempt in self._running:
            self._running.discard(attempt)
            self._free_gpus = sorted([*self._free_gpus, *attempt.gpus])
        elif any(entry[2] is attempt for entry in self._waiting):
            self._waiting = [entry for entry in self._waiting if entry[2] is not attempt]
            heapq.heapify(self._waiting)
