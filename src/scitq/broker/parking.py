"""Requests that wait for something to happen: woken by topics, at the latest at their deadline."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

from scitq.broker.context import Park
from scitq.protocol.registry import MessageKind, Request
from scitq.protocol.tokens import Identity

_MOST_REMEMBERED = 20_000


@dataclass(slots=True)
class Pending:
    """A request that has not been answered yet."""

    peer: bytes
    request_id: str
    kind: MessageKind
    message: Request
    who: Identity
    arrived_s: float
    token: str = field(repr=False, default="")
    key: str = ""
    until_s: float = 0.0
    not_before_s: float = 0.0
    topics: frozenset[str] = frozenset()
    runs: int = 0
    seen_turn: int = 0
    """The turn of the loop whose commits the last run of a reading handler could see."""


class Parking:
    """All parked requests, by topic and by time."""

    def __init__(self) -> None:
        """Nothing parked."""
        self._by_topic: dict[str, set[int]] = {}
        self._parked: dict[int, Pending] = {}
        self._times: list[tuple[float, int]] = []
        self._numbers = itertools.count()
        self._turns: dict[str, int] = {}
        self._due: list[Pending] = []

    def __len__(self) -> int:
        """How many are parked."""
        return len(self._parked)

    def park(self, pending: Pending, park: Park, now_s: float) -> None:
        """Keep a request; one whose topic was notified since it looked is due at once."""
        pending.until_s, pending.key, pending.topics = park.until_s, park.key, park.topics
        pending.not_before_s = now_s + park.at_least_s
        number = next(self._numbers)
        self._parked[number] = pending
        for topic in park.topics:
            self._by_topic.setdefault(topic, set()).add(number)
        heapq.heappush(self._times, (park.until_s, number))
        if any(self._turns.get(topic, -1) > pending.seen_turn for topic in park.topics):
            self._wake(number, now_s)

    def notify(self, topics: set[str], turn: int, now_s: float) -> None:
        """These things have happened, and are on disk since this turn of the loop."""
        if len(self._turns) > _MOST_REMEMBERED:
            self._turns = {topic: at for topic, at in self._turns.items() if at > turn - 1000}
        for topic in topics:
            self._turns[topic] = turn
            for number in list(self._by_topic.get(topic, ())):
                self._wake(number, now_s)

    def _wake(self, number: int, now_s: float) -> None:
        pending = self._parked.get(number)
        if pending is None:
            return
        if pending.not_before_s > now_s:
            heapq.heappush(self._times, (pending.not_before_s, number))
            return
        self._leave(number, pending)
        self._due.append(pending)

    def _leave(self, number: int, pending: Pending) -> None:
        del self._parked[number]
        for topic in pending.topics:
            numbers = self._by_topic.get(topic)
            if numbers is not None:
                numbers.discard(number)
                if not numbers:
                    del self._by_topic[topic]

    def due(self, now_s: float) -> list[Pending]:
        """Requests to run again now."""
        while self._times and self._times[0][0] <= now_s:
            _, number = heapq.heappop(self._times)
            pending = self._parked.get(number)
            if pending is not None:
                self._leave(number, pending)
                self._due.append(pending)
        found, self._due = self._due, []
        return found

    def next_s(self) -> float:
        """Monotonic second of the next deadline; infinity when there is none."""
        if self._due:
            return 0.0
        return self._times[0][0] if self._times else float("inf")
