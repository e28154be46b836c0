"""The only module that reads clocks."""

from __future__ import annotations

import time
from typing import NewType

UnixMs = NewType("UnixMs", int)


def now_ms() -> UnixMs:
    """Wall time in Unix milliseconds, UTC; for storing and sending."""
    return UnixMs(time.time_ns() // 1_000_000)


def monotonic_s() -> float:
    """Monotonic seconds; for measuring and for deadlines."""
    return time.monotonic()


def sleep_s(seconds: float) -> None:
    """Wait; for back-off between tries only, never for a condition that can be waited upon."""
    time.sleep(seconds)
