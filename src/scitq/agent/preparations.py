"""Which attempts prepare their data and images now, and which wait for their turn to (status C)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from scitq.agent.attempt import Attempt, Phase

AT_LEAST = 2


class Preparations:
    """At most one preparation for each slot, and never fewer than two: more would only share the same network and disk.

    Belongs to the loop's thread. `begin` is called when it is an attempt's turn.
    """

    def __init__(self, most: Callable[[], int], begin: Callable[[Attempt], None]) -> None:
        self._most = most
        self._begin = begin
        self._waiting: deque[Attempt] = deque()
        self._under_way: set[Attempt] = set()

    def add(self, attempt: Attempt) -> None:
        """Begin, now or when others have ended."""
        self._waiting.append(attempt)
        self._go_on()

    def ended(self, attempt: Attempt) -> None:
        """A preparation has ended, well or badly."""
        self._under_way.discard(attempt)
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and len(self._under_way) < max(AT_LEAST, self._most()):
            attempt = self._waiting.popleft()
            if attempt.phase is Phase.ACCEPTED:
                attempt.phase = Phase.FETCHING
                self._under_way.add(attempt)
                self._begin(attempt)
