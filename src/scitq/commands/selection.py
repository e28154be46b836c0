"""Ids as people write them: `7`, `1,4`, `3-9`, `3-99:2`, `last`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from scitq.errors import UsageError

_PIECE = re.compile(r"(\d{1,18})(?:-(\d{1,18})(?::(\d{1,9}))?)?", re.ASCII)

Range = tuple[int, int, int]
"""First, last (included) and stride."""


def parse_ranges(text: str) -> list[Range]:
    """The ranges in `1,4,7-9,10-20:2`, in the order written; UsageError for anything else."""
    found = []
    for piece in text.split(","):
        match = _PIECE.fullmatch(piece.strip())
        if not match:
            raise UsageError(f"{text!r} is no selection of ids; write 7, or 1,4, or 3-9, or 3-99:2, or last")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        stride = int(match[3]) if match[3] else 1
        if last < first or stride < 1:
            raise UsageError(f"{piece!r} selects nothing: the end is before the start, or the stride is 0")
        found.append((first, last, stride))
    return found


def ranges_of(texts: Sequence[str]) -> tuple[bool, list[Range]]:
    """Whether `last` is among several selections, and all their ranges."""
    is_last = False
    found: list[Range] = []
    for text in texts:
        kept = [piece for piece in text.split(",") if piece.strip() != "last"]
        is_last = is_last or len(kept) < len(text.split(","))
        if kept:
            found += parse_ranges(",".join(kept))
    return is_last, found


AT_ONCE = 2000
"""Tasks of one request that changes them: a piece takes the server about a tenth of a second, and it serves others in between."""


def pieces(ids: list[int]) -> Iterator[list[int]]:
    """The ids in pieces of at most AT_ONCE; each piece is done wholly or not at all."""
    for first in range(0, len(ids), AT_ONCE):
        yield ids[first : first + AT_ONCE]
