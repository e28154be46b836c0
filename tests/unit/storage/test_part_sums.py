"""Sums of objects that other tools stored in parts."""

from __future__ import annotations

import hashlib
import os

import pytest

from scitq.storage.base import Cancel
from scitq.storage.part_sums import is_composite, is_proved_wrong

CONTENT = os.urandom(2_500_000)


def etag_of(sizes: list[int]) -> str:
    sums, start = b"", 0
    for size in sizes:
        sums += hashlib.md5(CONTENT[start : start + size]).digest()
        start += size
    return f"{hashlib.md5(sums).hexdigest()}-{len(sizes)}"


@pytest.fixture
def check(tmp_path):
    """Whether `content` is proved wrong by the sum of these parts; which of them were asked for."""

    def run(sizes, content=CONTENT, *, tells=True):
        (tmp_path / "file").write_bytes(content)
        asked = []

        def part_size(number):
            asked.append(number)
            return sizes[number - 1] if tells else None

        with (tmp_path / "file").open("rb") as file:
            return is_proved_wrong(file.fileno(), len(content), etag_of(sizes), part_size, Cancel()), asked

    return run


def test_fc_05_the_first_part_tells_the_others_where_they_are_alike(check):
    for sizes in ([1_000_000, 1_000_000, 500_000], [1_250_000, 1_250_000], [2_500_000]):
        assert check(sizes) == (False, [1])


def test_fc_05_uneven_parts_are_asked_for_one_by_one(check):
    for sizes in ([1_000_000, 500_000, 1_000_000], [100_000, 2_400_000]):
        assert check(sizes) == (False, list(range(1, len(sizes) + 1)))


def test_fc_05_a_changed_byte_is_proved_and_silence_proves_nothing(check):
    damaged = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    assert check([1_000_000, 1_000_000, 500_000], damaged)[0]
    assert check([1_000_000, 500_000, 1_000_000], damaged)[0]
    assert not check([1_000_000, 1_000_000, 500_000], damaged, tells=False)[0]


def test_composites_are_told_by_their_form():
    assert is_composite(etag_of([2_500_000]))
    for text in ("", "a" * 32, f"{'a' * 32}-", f"{'a' * 32}-0", f"{'g' * 32}-1", "x-1"):
        assert not is_composite(text)
