"""Entries of the cache made sure of on the disk, a while after they were made (docs/data.md, "The cache").

Until the kernel has written a file, a power cut can leave it with its size and time but with zeros: then its stamp proves nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import Final

from scitq.agent.cache_entry import Entry
from scitq.util import clock

DELAY_S: Final = 60.0
"""By then the kernel has written nearly all by itself, and what was evicted meanwhile need not be written at all."""


class Settler:
    """Thread-safe; its thread lives while there is anything to do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[float, Entry]] = deque()
        self._is_running = False

    def add(self, entry: Entry) -> None:
        """Settle `entry` later, unless it is."""
        if entry.is_settled:
            return
        with self._lock:
            self._waiting.append((clock.monotonic_s() + DELAY_S, entry))
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=self._run, name="settle", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    return
                due_s, entry = self._waiting.popleft()
            pause.wait(max(0.0, due_s - clock.monotonic_s()))
            with suppress(OSError):  # it was evicted
                entry.settle()
