"""The only module that reads clocks."""

from __future__ import annotations

import time
from typing import NewType

UnixMs = NewType("UnixMs", int)
_TIMEX_BYTES = 256
"""Room for the kernel's `struct timex`, which has 208 bytes; zeroes in it mean that nothing is set."""
_TIME_ERROR = 5


def now_ms() -> UnixMs:
    """Wall time in Unix milliseconds, UTC; for storing and sending."""
    return UnixMs(time.time_ns() // 1_000_000)


def monotonic_s() -> float:
    """Monotonic seconds; for measuring and for deadlines."""
    return time.monotonic()


def sleep_s(seconds: float) -> None:
    """Wait; for back-off between tries only, never for a condition that can be waited upon."""
    time.sleep(seconds)


def is_synchronised() -> bool | None:
    """Whether the kernel knows of a service (NTP) that keeps the clock right; None when it does not say."""
    import ctypes

    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR
