"""Who gets which task: workers in memory, and one pure pass that pairs ready tasks with free places.

A worker takes `concurrency` tasks whose demands are reserved on it, and `prefetch` more that only prepare their data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from scitq.broker.ready import NO_STEP, ReadyQueue
from scitq.model.needs import Capacity, Needs

_NO_LIMIT = float("inf")


@dataclass(slots=True)
class Place:
    """A task that a worker holds. `is_reserved`: it has a slot; else it is prefetched. `is_shipping`: it only uploads."""

    attempt: int
    needs: Needs
    is_reserved: bool
    is_shipping: bool = False
    assigned_s: float = 0.0


@dataclass(slots=True)
class LiveWorker:
    """A worker as the scheduler sees it."""

    id: int
    name: str
    group: int
    concurrency: int
    prefetch: int
    total: Capacity
    free: Capacity
    has_runtime: bool
    allows_bare: bool
    is_ready: bool = False
    ends_s: float = _NO_LIMIT
    """Monotonic second at which its allocation ends."""
    not_before_s: float = 0.0
    """It declined a task; none is offered before this monotonic second."""
    declines: int = 0
    held: dict[int, Place] = field(default_factory=dict)

    @property
    def reserved(self) -> int:
        """Slots that are taken."""
        shipping = sum(1 for place in self.held.values() if place.is_shipping)
        return sum(1 for place in self.held.values() if place.is_reserved and not place.is_shipping) + max(
            0, shipping - max(1, self.concurrency)
        )

    @property
    def prefetched(self) -> int:
        """Tasks that only prepare."""
        return sum(1 for place in self.held.values() if not place.is_reserved and not place.is_shipping)

    def refuses(self, needs: Needs, now_s: float) -> str:
        """Why this worker can never run such a task; empty when it could."""
        if needs.is_bare and not self.allows_bare:
            return "runs no bare tasks"
        if not needs.is_bare and not self.has_runtime:
            return "has no container runtime"
        if needs.time_s and self.ends_s - now_s < needs.time_s:
            return "ends too soon"
        missing = self.total.misses(needs)
        return f"is too small: {missing}" if missing else ""

    def hold(self, task_id: int, place: Place) -> None:
        """Take a task in."""
        self.drop(task_id)
        self.held[task_id] = place
        if place.is_reserved and not place.is_shipping:
            self.free = self.free.less(place.needs)

    def drop(self, task_id: int) -> Place | None:
        """Give a task's place free."""
        place = self.held.pop(task_id, None)
        if place and place.is_reserved and not place.is_shipping:
            self.free = self.free.less(place.needs, -1)
        return place

    def promote(self, task_id: int) -> None:
        """A prefetched task has started: it has a slot from now on."""
        place = self.held.get(task_id)
        if place and not place.is_reserved:
            place.is_reserved = True
            self.free = self.free.less(place.needs)

    def ship(self, task_id: int) -> None:
        """A task has run and uploads: its slot is free for the next."""
        place = self.held.get(task_id)
        if place and not place.is_shipping:
            if place.is_reserved:
                self.free = self.free.less(place.needs, -1)
            place.is_shipping = True


@dataclass(frozen=True, slots=True)
class Offer:
    """One pairing."""

    task_id: int
    worker: LiveWorker
    needs: Needs
    is_reserved: bool


def pair(
    ready: ReadyQueue,
    workers: Iterable[LiveWorker],
    now_s: float,
    *,
    is_open: Callable[[int], bool],
    has_room: Callable[[Needs], bool],
    most: int = 1000,
) -> list[Offer]:
    """Pair ready tasks with free places, first come first served within a priority; at most `most` at a time.

    is_open: whether tasks of a group may start (steps can be paused). has_room: whether an array may run one more.
    Takes the paired tasks out of the queue and into the workers' `held`.
    """
    by_group: dict[int, list[LiveWorker]] = {}
    for worker in workers:
        if worker.is_ready and worker.not_before_s <= now_s and len(worker.held) < 2 * worker.concurrency + worker.prefetch + 1:
            by_group.setdefault(worker.group, []).append(worker)
    offers: list[Offer] = []
    for group, crew in by_group.items():
        if group != NO_STEP and not is_open(group):
            continue
        blocked: set[Needs] = set()
        while len(offers) < most:
            head = next((needs for _, needs in ready.heads(group) if needs not in blocked), None)
            if head is None:
                break
            # All tasks of one queue ask the same, so the queue is gone on with until nobody has a place for it.
            chosen = _choose(crew, head, now_s) if not head.array_id or has_room(head) else None
            if chosen is None:
                blocked.add(head)
                continue
            worker, is_reserved = chosen
            task_id = ready.pop(group, head)
            worker.hold(task_id, Place(0, head, is_reserved, assigned_s=now_s))
            offers.append(Offer(task_id, worker, head, is_reserved))
    return offers


def _choose(crew: list[LiveWorker], needs: Needs, now_s: float) -> tuple[LiveWorker, bool] | None:
    best: LiveWorker | None = None
    room = 0
    spare: LiveWorker | None = None
    spare_room = 0
    for worker in crew:
        if worker.refuses(needs, now_s):
            continue
        slots = worker.concurrency - worker.reserved
        if slots > room and not worker.free.misses(needs):
            best, room = worker, slots
        elif best is None:
            waiting = worker.prefetch - worker.prefetched
            if waiting > spare_room:
                spare, spare_room = worker, waiting
    if best is not None:
        return best, True
    return (spare, False) if spare is not None else None
