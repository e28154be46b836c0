"""Ids as people write them: `7`, `1,4`, `3-9`, `3-99:2`, `last`."""

from __future__ import annotations

import re
import sys
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


def merged(ranges: Sequence[Range]) -> list[Range]:
    """Ascending, without doubles, runs of neighbours joined; ranges with a stride stay as they are."""
    found: list[Range] = []
    for first, last, stride in sorted(set(ranges)):
        if found and stride == found[-1][2] == 1 and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]), 1)
        else:
            found.append((first, last, stride))
    return found


def selected(texts: Sequence[str]) -> tuple[bool, list[Range]]:
    """As ranges_of, for the values of --id: `-` stands for the selections that stdin holds, one a word."""
    plain = [text for text in texts if text.strip() != "-"]
    is_last, ranges = ranges_of(plain)
    if len(plain) == len(texts):
        return is_last, ranges
    words = sys.stdin.buffer.read().decode("utf-8", "replace").split()
    if not words and not plain:
        raise UsageError("stdin holds no id")
    also_last, more = ranges_of(words)
    return is_last or also_last, [*ranges, *more]


AT_ONCE = 2000
"""Tasks of one request that changes them: a piece takes the server about a tenth of a second, and it serves others in between."""


def pieces(ids: list[int]) -> Iterator[list[int]]:
    """The ids in pieces of at most AT_ONCE; each piece is done wholly or not at all."""
    for first in range(0, len(ids), AT_ONCE):
        yield ids[first : first + AT_ONCE]
