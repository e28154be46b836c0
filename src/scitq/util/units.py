"""Durations and sizes as people write them."""

from __future__ import annotations

import re

from scitq.errors import UsageError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_LONGEST_S = 1000 * 365 * 86400
_MOST_BYTES = 2**63
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE)


def parse_duration_s(text: str) -> float:
    """Seconds in `90`, `90s`, `2h`, `1h30m`, `7d`, `1-02:03:04` or `02:03:04`; UsageError for anything else."""
    text = text.strip()
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text)
    if clock:
        total: float = sum(float(part or 0) * unit for part, unit in zip(clock.groups(), (86400, 3600, 60, 1), strict=True))
        position = len(text)
    else:
        total, position = 0.0, 0
        for match in _DURATION.finditer(text):
            if match.start() != position:
                break
            total += float(match[1]) * _SECONDS[(match[2] or "s").lower()]
            position = match.end()
    if not text or position != len(text):
        raise UsageError(f"{text!r} is no duration; write 90s, 15m, 2h, 7d or 1h30m")
    if total > _LONGEST_S:
        raise UsageError(f"{text!r} is too long; at most 1000 years")
    return total


def parse_bytes(text: str) -> int:
    """Bytes in `500`, `10k`, `1.5G` (powers of 1000) or `1.5GiB` (powers of 1024); UsageError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text!r} is no size; write 500M, 10G or 1.5TiB")
    power = " kmgtp".index(match[2].lower()) if match[2] else 0
    found = float(match[1]) * (1024 if match[3] else 1000) ** power
    if found >= _MOST_BYTES:
        raise UsageError(f"{text!r} is too large; at most 8 EiB")
    return int(found)


def format_bytes(count: float) -> str:
    """`count` bytes in powers of 1024 with at most one decimal: `0 B`, `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"


def format_duration(seconds: float) -> str:
    """`seconds` for a reader: `4 ms`, `12.3 s`, `5m12s`, `2h05m`, `3d04h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def counted(number: int, what: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def figure(number: float) -> str:
    """A figure for a reader, never in the form 1e+06: `0.5`, `31.3`, `1048576`."""
    return f"{number:.0f}" if abs(number) >= 1000 or number == int(number) else f"{number:.4g}"
