"""The sum of an object that some tool stored in parts: the MD5 of its parts' MD5 sums, where the storage tells the parts' sizes."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from collections.abc import Callable, Sequence

from scitq.storage.base import Cancel, ignore_progress
from scitq.storage.s3_pieces import FilePiece
from scitq.storage.transfer import run_parallel

_COMPOSITE = re.compile(r"[0-9a-f]{32}-([1-9][0-9]{0,4})")
_AT_ONCE = 4
PartSize = Callable[[int], int | None]
"""The size of part N (from 1 on); None when the storage does not tell it."""


def is_composite(etag: str) -> bool:
    """Whether `etag` has the form of a sum of parts."""
    return _COMPOSITE.fullmatch(etag) is not None


def is_proved_wrong(descriptor: int, size: int, etag: str, part_size: PartSize, cancel: Cancel) -> bool:
    """Whether the open file can't be what the composite `etag` stands for; never so when the parts' sizes can't be told.

    Nearly all tools make parts of one size, so the first one tells the others; only when that does not fit, all are asked for.
    """
    count = int(etag.partition("-")[2])
    first = part_size(1)
    if first is None:
        return False
    last = size - first * (count - 1)
    if 0 < last <= first and _sum_of(descriptor, [first] * (count - 1) + [last], cancel) == etag:
        return False
    sizes = [first]
    for number in range(2, count + 1):
        found = part_size(number)
        if found is None:
            return False
        sizes.append(found)
    return sum(sizes) != size or _sum_of(descriptor, sizes, cancel) != etag


def _sum_of(descriptor: int, sizes: Sequence[int], cancel: Cancel) -> str:
    sums = [b""] * len(sizes)

    def job(number: int, start: int, size: int) -> Callable[[Cancel], None]:
        def work(ours: Cancel) -> None:
            sums[number] = b64decode(FilePiece(descriptor, start, size, ignore_progress).md5(ours))

        return work

    jobs, start = [], 0
    for number, size in enumerate(sizes):
        jobs.append(job(number, start, size))
        start += size
    run_parallel(jobs, workers=_AT_ONCE, cancel=cancel)
    return f"{hashlib.md5(b''.join(sums), usedforsecurity=False).hexdigest()}-{len(sizes)}"
