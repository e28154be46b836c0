"""The agent's event loop: one thread that waits for descriptors, timers and calls from other threads; nothing polls."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import select
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from scitq.util import clock

logger = logging.getLogger(__name__)
Callback = Callable[[], None]


class Timer:
    """A call to come; `cancel` it at will."""

    __slots__ = ("call", "is_cancelled")

    def __init__(self, call: Callback) -> None:
        self.call = call
        self.is_cancelled = False

    def cancel(self) -> None:
        """Never call."""
        self.is_cancelled = True


class Loop:
    """`run` belongs to one thread; `post` may be called from any."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        self._posted: deque[Callback] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._is_stopped = False
        self.before_wait: list[Callback] = []
        """Called after each round of events: where batches are sent."""
        self.watch(self._wake, self._woken)

    def watch(self, descriptor: int, call: Callback) -> None:
        """Call `call` whenever `descriptor` can be read."""
        self._callbacks[descriptor] = call
        self._epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        """The opposite of `watch`; a descriptor that is not watched is fine."""
        if self._callbacks.pop(descriptor, None) is not None:
            with suppress(OSError):
                self._epoll.unregister(descriptor)

    def after(self, seconds: float, call: Callback) -> Timer:
        """Call once, in `seconds`."""
        timer = Timer(call)
        heapq.heappush(self._timers, (clock.monotonic_s() + seconds, next(self._count), timer))
        return timer

    def post(self, call: Callback) -> None:
        """Call soon in the loop's thread; from any thread and from signal handlers."""
        self._posted.append(call)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        """Let `run` return after this round."""
        self._is_stopped = True

    def run(self) -> None:
        """Until `stop`."""
        while not self._is_stopped:
            for descriptor, _ in self._epoll.poll(self._wait_s(), 64):
                call = self._callbacks.get(descriptor)
                if call is not None:
                    call()
            self._run_timers()
            for call in self.before_wait:
                call()

    def close(self) -> None:
        """Give the descriptors back."""
        self._epoll.close()
        os.close(self._wake)

    def _woken(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._posted:
            self._posted.popleft()()

    def _wait_s(self) -> float:
        while self._timers and self._timers[0][2].is_cancelled:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1.0
        return max(0.0, self._timers[0][0] - clock.monotonic_s())

    def _run_timers(self) -> None:
        if not self._timers:
            return
        now_s = clock.monotonic_s()
        while self._timers and self._timers[0][0] <= now_s:
            _, _, timer = heapq.heappop(self._timers)
            if not timer.is_cancelled:
                timer.call()
