"""Archives of a few megabytes that stand for gigabytes, on a small disk: stopped at its limit, with a reason, and nothing is left."""

from __future__ import annotations

import struct
import tarfile
import zlib

import pytest
import zstandard
from tests.lib.fetching import Worker
from tests.lib.mounts import tmpfs

from scitq.agent.actions.content import Consumed, _ZstdReader
from scitq.errors import DiskFullError, StorageError

SIZE = 4 << 30
_PIECE = 16 << 20


def deflated(head: bytes = b"") -> bytes:
    """`head` and 4 GiB of zeros."""
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = machine.compress(head) + machine.flush(zlib.Z_FULL_FLUSH)
    zeros = machine.compress(bytes(_PIECE)) + machine.flush(zlib.Z_FULL_FLUSH)
    return start + zeros * (SIZE // _PIECE) + b"\x03\0"


def gzipped(head: bytes = b"") -> bytes:
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + deflated(head) + bytes(8)


def zstandard_zeros(head: bytes, size: int) -> bytes:
    """A frame of `head` and blocks of one repeated byte, four bytes each."""
    blocks = ((1 << 17) << 3 | 2).to_bytes(3, "little") + b"\0"
    plain = (len(head) << 3).to_bytes(3, "little") + head
    return struct.pack("<I", 0xFD2FB528) + b"\0\x58" + plain + blocks * (size >> 17) + b"\1\0\0"


def zipped() -> bytes:
    data, name = deflated(), b"zeros"
    extra = struct.pack("<HHQQ", 1, 16, SIZE, len(data))
    fields = (45, 0, 8, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, len(name), len(extra))
    local = struct.pack("<IHHHHHIIIHH", 0x04034B50, *fields) + name + extra + data
    central = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 45, *fields, 0, 0, 0, 0, 0) + name + extra
    return local + central + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(central), len(local), 0)


def header(size: int) -> bytes:
    info = tarfile.TarInfo("zeros")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def sparse() -> bytes:
    """A tar whose one file has a hole of 4 GiB."""

    def number(value: int) -> bytes:
        return b"\x80" + value.to_bytes(11, "big")

    info = tarfile.TarInfo("sparse")
    info.size, info.type = 512, tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:398], block[398:410], block[483:495] = number(SIZE - 512), number(512), number(SIZE)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(512) + bytes(1024)


BOMBS = {
    "x.gz|gunzip": gzipped,
    "x.tgz|untar": lambda: gzipped(header(SIZE)),
    "x.gz|gunzip|untar": lambda: gzipped(header(SIZE)),
    "x.tar.zst|untar": lambda: zstandard_zeros(header(100 << 30), 100 << 30),
    "x.zip|untar": zipped,
    "x.tar|untar": sparse,
}


@pytest.mark.parametrize("name", BOMBS)
def test_unt_06_in_16_a_bomb_stops_where_the_disk_must_stay_free(tmp_path, name):
    with tmpfs(tmp_path / "work", "200m") as disk:
        worker = Worker(tmp_path, min_free_disk="16M")
        worker.put(f"b/{name.partition('|')[0]}", BOMBS[name]())
        for kind in ("inputs", "resources"):
            with pytest.raises(DiskFullError, match=r"st://b/x.* no room on the worker's disk"):
                worker.run(**{kind: [f"st://b/{name}"]})
            assert not [path for path in disk.rglob("*") if path.is_file()]


def test_unt_06_what_comes_after_the_end_of_an_archive_counts_too(tmp_path):
    worker = Worker(tmp_path, max_extract_size="50M")
    worker.put("b/x.tgz", gzipped(header(0) + bytes(1024)))
    with pytest.raises(StorageError, match="would expand to more than"):
        worker.run(inputs=["st://b/x.tgz|untar"])


def test_unt_06_a_zstd_bomb_comes_in_small_pieces(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(zstandard_zeros(b"head", 256 << 20))
    reader, total = _ZstdReader(Consumed(path)), 0
    while chunk := reader.read():
        assert len(chunk) <= 1 << 17
        total += len(chunk)
    assert total == (256 << 20) + 4


@pytest.mark.parametrize("has_checksum", [False, True])
def test_zstd_frames_of_every_form_are_read_and_every_cut_is_noticed(tmp_path, has_checksum):
    path, skippable = tmp_path / "x", struct.pack("<II", 0x184D2A53, 5) + b"skip!"

    def read(data: bytes) -> bytes:
        path.write_bytes(data)
        reader, pieces = _ZstdReader(Consumed(path)), []
        while chunk := reader.read():
            pieces.append(chunk)
        return b"".join(pieces)

    texts = [b"", b"x", bytes(300_000), b"".join(b"%d\n" % number for number in range(60_000))]
    for has_size in (False, True):
        options = zstandard.ZstdCompressionParameters.from_level(3, write_checksum=has_checksum, write_content_size=has_size)
        machine = zstandard.ZstdCompressor(compression_params=options)
        frames = [machine.compress(text) for text in texts]
        assert read(skippable + skippable.join(frames)) == b"".join(texts)
        for end in {1, 3, 5, 7, len(frames[3]) // 2, len(frames[3]) - 1}:
            with pytest.raises((EOFError, zstandard.ZstdError)):
                read(frames[0] + frames[3][:end])
