"""Who gets which task: workers in memory, and one pure pass that pairs ready tasks with free places.

A worker takes `concurrency` tasks whose demands are reserved on it, and `prefetch` more that only prepare their data.
"""

from __future__ import annotations

from collections.abc import Callable
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
    failures: int = 0
    held: dict[int, Place] = field(default_factory=dict)
    _reserved: int = 0
    _shipping: int = 0

    @property
    def slots(self) -> int:
        """Free slots; uploads beyond one per slot take slots too, so that they can't pile up without end."""
        return self.concurrency - self._reserved - max(0, self._shipping - max(1, self.concurrency))

    @property
    def spare(self) -> int:
        """Free places for tasks that only prepare."""
        return self.prefetch - (len(self.held) - self._reserved - self._shipping)

    @property
    def is_roomy(self) -> bool:
        """Whether the scheduler should look at it at all."""
        return self.is_ready and (self.slots > 0 or self.spare > 0)

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

    def _count(self, place: Place, sign: int) -> None:
        if place.is_shipping:
            self._shipping += sign
        elif place.is_reserved:
            self._reserved += sign
            self.free = self.free.less(place.needs, sign)

    def hold(self, task_id: int, place: Place) -> None:
        """Take a task in."""
        self.drop(task_id)
        self.held[task_id] = place
        self._count(place, 1)

    def drop(self, task_id: int) -> Place | None:
        """Give a task's place free."""
        place = self.held.pop(task_id, None)
        if place:
            self._count(place, -1)
        return place

    def move(self, task_id: int, *, is_shipping: bool) -> None:
        """A task has started (it has a slot from now on), or has run and only uploads (its slot is free for the next)."""
        place = self.held.get(task_id)
        if place and (place.is_shipping != is_shipping or not place.is_reserved):
            self._count(place, -1)
            place.is_reserved, place.is_shipping = True, is_shipping
            self._count(place, 1)


@dataclass(frozen=True, slots=True)
class Offer:
    """One pairing."""

    task_id: int
    worker: LiveWorker
    needs: Needs
    is_reserved: bool


class Fleet:
    """All live workers, and by group those that have room, in the order of their last offer."""

    def __init__(self) -> None:
        """No workers."""
        self.workers: dict[int, LiveWorker] = {}
        self._roomy: dict[int, dict[int, LiveWorker]] = {}
        self._groups: dict[int, int] = {}
        self.touched: set[int] = set()
        """Groups where room appeared since the scheduler last looked."""

    def add(self, worker: LiveWorker) -> None:
        """A worker came."""
        self.workers[worker.id] = worker
        self.touch(worker)

    def remove(self, worker_id: int) -> LiveWorker | None:
        """A worker is gone for good."""
        self._roomy.get(self._groups.pop(worker_id, -1), {}).pop(worker_id, None)
        return self.workers.pop(worker_id, None)

    def touch(self, worker: LiveWorker) -> None:
        """Something about the worker changed: look whether it has room, and in which group."""
        old = self._groups.pop(worker.id, None)
        if old is not None and (old != worker.group or not worker.is_roomy):
            self._roomy[old].pop(worker.id, None)
        if worker.is_roomy:
            self._roomy.setdefault(worker.group, {})[worker.id] = worker
            self._groups[worker.id] = worker.group
            self.touched.add(worker.group)

    def roomy(self, group: int) -> dict[int, LiveWorker]:
        """Workers of a group with room, the one that waited longest first."""
        return self._roomy.get(group, {})


def pair(
    ready: ReadyQueue,
    fleet: Fleet,
    now_s: float,
    *,
    is_open: Callable[[int], bool],
    has_room: Callable[[Needs], bool],
    most: int = 200,
) -> list[Offer]:
    """Pair ready tasks with free places, first come first served within a priority.

    At most `most` at a time, for each costs about 0.1 ms of a transaction and messages shall not wait long; what is
    left stays marked in `ready.changed`, and the caller comes again.

    is_open: whether tasks of a group may start (steps can be paused). has_room: whether an array may run one more.
    Only groups where tasks or room appeared are looked at. Takes the paired tasks out of the queue and into `held`.
    """
    offers: list[Offer] = []
    groups = sorted(ready.changed | fleet.touched)
    ready.changed.clear()
    fleet.touched.clear()
    for group in groups:
        if group != NO_STEP and not is_open(group):
            continue
        crew = fleet.roomy(group)
        blocked: set[Needs] = set()
        while crew:
            head = next((needs for _, needs in ready.heads(group) if needs not in blocked), None)
            if head is None:
                break
            # All tasks of one queue ask the same: when nobody has a place for its head, nobody has for the rest.
            chosen = _choose(crew, head, now_s) if not head.array_id or has_room(head) else None
            if chosen is None:
                blocked.add(head)
                continue
            if len(offers) >= most:
                ready.changed.add(group)
                break
            worker, is_reserved = chosen
            task_id = ready.pop(group, head)
            worker.hold(task_id, Place(0, head, is_reserved, assigned_s=now_s))
            crew.pop(worker.id)
            if worker.is_roomy:
                crew[worker.id] = worker
            offers.append(Offer(task_id, worker, head, is_reserved))
    return offers


def _choose(crew: dict[int, LiveWorker], needs: Needs, now_s: float) -> tuple[LiveWorker, bool] | None:
    spare: LiveWorker | None = None
    for worker in crew.values():
        if worker.not_before_s > now_s or worker.refuses(needs, now_s):
            continue
        if worker.slots > 0 and not worker.free.misses(needs):
            return worker, True
        if spare is None and worker.spare > 0:
            spare = worker
    return (spare, False) if spare is not None else None
