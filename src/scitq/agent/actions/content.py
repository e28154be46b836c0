"""What a file is, told by its first bytes, and reading it unpacked while the disk gets its blocks back."""

from __future__ import annotations

import bz2
import ctypes
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Final, cast

import zstandard
from isal import igzip, isal_zlib

from scitq.errors import StorageError

_MEMORY: Final = 192 << 20
"""Most memory that one decompressor may take; xz -9 needs 65 MiB, zstd --ultra -22 128 MiB."""
_PUNCH_EVERY: Final = 32 << 20
_PUNCH_AND_KEEP_SIZE: Final = 0x03
_HEAD: Final = 512
_AT_ONCE: Final = 1 << 18


class Content(StrEnum):
    """Kinds of files that actions know."""

    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"
    ZIP = "zip"
    TAR = "tar"
    OTHER = "other"


_MAGIC: Final = (
    (b"\x1f\x8b", Content.GZIP),
    (b"BZh", Content.BZIP2),
    (b"\xfd7zXZ\x00", Content.XZ),
    (b"\x28\xb5\x2f\xfd", Content.ZSTD),
    (b"PK\x03\x04", Content.ZIP),
    (b"PK\x05\x06", Content.ZIP),
    (b"PK\x07\x08PK\x03\x04", Content.ZIP),
)
READ_ERRORS: Final = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    cast("type[Exception]", isal_zlib.IsalError),
    lzma.LZMAError,
    zstandard.ZstdError,
    MemoryError,
)
"""What the decompressors raise for damaged data; an OSError with an errno is the disk's."""


def kind_of(head: bytes) -> Content:
    """The kind of a file that starts with `head` (512 bytes, fewer when it is shorter)."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return Content.TAR if is_tar_header(head) else Content.OTHER


def is_tar_header(block: bytes) -> bool:
    """Whether 512 bytes are a tar header with a right checksum, or the zeros of an empty archive."""
    if len(block) < _HEAD:
        return False
    if not any(block):
        return True
    try:
        stored = tarfile.nti(block[148:156])  # type: ignore[attr-defined] # missing in typeshed
    except tarfile.TarError:
        return False
    return stored in tarfile.calc_chksums(block)  # type: ignore[attr-defined] # as above


def read_head(path: Path) -> bytes:
    """The first 512 bytes of a file."""
    with path.open("rb", buffering=0) as file:
        return file.read(_HEAD)


def is_program(head: bytes) -> bool:
    """Whether what starts so can be run: an ELF file or a script with `#!`."""
    return head.startswith((b"\x7fELF", b"#!"))


class Consumed(io.RawIOBase):
    """A file read from start to end once, whose blocks go back to the disk behind the reader where it can do that."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b", buffering=0)
        self._done = 0
        self._freed = 0
        self._punches = True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # what the library's readers pass
        """Fill `buffer` as far as the file goes; 0 at the end."""
        count = self._file.readinto(buffer) or 0
        self._done += count
        if self._punches and self._done - self._freed >= _PUNCH_EVERY:
            keep = self._done - (1 << 20)
            self._punches = _punch(self._file.fileno(), self._freed, keep - self._freed)
            self._freed = keep
        return count

    def readable(self) -> bool:
        """Yes, as files are."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _punch(descriptor: int, offset: int, length: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    fallocate = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if fallocate is None:
        return False
    return bool(fallocate(descriptor, _PUNCH_AND_KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)) == 0)


class _XzReader:
    """All streams of an xz file, in bounded memory; `lzma.open` knows no bound."""

    def __init__(self, source: Consumed) -> None:
        self._source = source
        self._machine = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)

    def read(self, size: int = -1) -> bytes:
        size = size if size > 0 else 1 << 20
        while True:
            if self._machine.eof:
                rest = self._machine.unused_data.lstrip(b"\0")
                while not rest:
                    rest = self._source.read(1 << 16) or b""
                    if not rest:
                        return b""
                    rest = rest.lstrip(b"\0")
                self._machine = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
                chunk = self._machine.decompress(rest, size)
            elif self._machine.needs_input:
                data = self._source.read(1 << 16) or b""
                if not data:
                    raise EOFError("the file ends too early")
                chunk = self._machine.decompress(data, size)
            else:
                chunk = self._machine.decompress(b"", size)
            if chunk:
                return chunk

    def close(self) -> None:
        pass


class _ZstdReader:
    """All frames of a zstd file; notices a truncated last one, which the library's stream takes for an end.

    One block at a time: it gives 128 KiB at most, while a few bytes of what is inside can stand for gigabytes.
    """

    def __init__(self, source: Consumed) -> None:
        self._factory = zstandard.ZstdDecompressor(max_window_size=_MEMORY)
        self._machine = self._factory.decompressobj()
        self._pieces = _zstd_pieces(_Exactly(source).read)
        self._is_inside = False

    def read(self, _size: int = -1) -> bytes:
        for data in self._pieces:
            chunk = self._machine.decompress(data)
            self._is_inside = not self._machine.eof
            if self._machine.eof:
                self._machine = self._factory.decompressobj()
            if chunk:
                return chunk
        if self._is_inside:
            raise EOFError("the file ends too early")
        return b""

    def close(self) -> None:
        pass


def _zstd_pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The bytes of a zstd file, cut after each block (RFC 8878, 3.1); what is cut short or is no zstd comes as it is."""
    while magic := read(4):
        if 0x184D2A50 <= int.from_bytes(magic, "little") <= 0x184D2A5F:
            length = read(4)
            yield magic + length
            left = int.from_bytes(length, "little")
            while left and (piece := read(min(left, 1 << 16))):
                left -= len(piece)
                yield piece
            continue
        head = read(1)
        flags = head[0] if head else 0
        is_single = bool(flags & 0x20)
        head += read((0 if is_single else 1) + (0, 1, 2, 4)[flags & 3] + (int(is_single), 2, 4, 8)[flags >> 6])
        yield magic + head
        is_last = False
        while not is_last and len(header := read(3)) == 3:
            number = int.from_bytes(header, "little")
            is_last, is_repeated = bool(number & 1), number >> 1 & 3 == 1
            yield header + read(1 if is_repeated else number >> 3)
        if is_last and flags & 4:
            yield read(4)


class _Exactly:
    """Gives what was asked for, from a reader that gives what it has."""

    def __init__(self, source: Any) -> None:  # noqa: ANN401 - anything with read
        self._source = source
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        if len(self._rest) >= size:
            chunk, self._rest = bytes(self._rest[:size]), self._rest[size:]
            return chunk
        pieces: list[bytes | memoryview] = [self._rest]
        missing = size - len(self._rest)
        self._rest = memoryview(b"")
        while missing > 0 and (piece := self._source.read(max(missing, _AT_ONCE))):
            pieces.append(piece[:missing])
            self._rest = memoryview(piece)[missing:]
            missing -= len(pieces[-1])
        return b"".join(pieces)


@contextmanager
def unpacked(path: Path, kind: Content) -> Iterator[_Exactly]:
    """The content of a compressed (or plain) file as a stream that gives exactly what is asked for; the file is used up."""
    source = Consumed(path)
    raw = cast("IO[bytes]", source)
    try:
        match kind:
            case Content.GZIP:
                yield _Exactly(igzip.IGzipFile(fileobj=raw, mode="rb"))  # type: ignore[no-untyped-call] # the library's own
            case Content.BZIP2:
                yield _Exactly(bz2.BZ2File(raw, "rb"))
            case Content.XZ:
                yield _Exactly(_XzReader(source))
            case Content.ZSTD:
                yield _Exactly(_ZstdReader(source))
            case _:
                yield _Exactly(source)
    finally:
        source.close()


@contextmanager
def reading(uri: str, what: str) -> Iterator[None]:
    """Turn the many errors of damaged data into one StorageError; errors of the disk pass."""
    try:
        yield
    except READ_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise StorageError(f"{uri}: the {what} is corrupt or truncated: {error or type(error).__name__}") from error


def file_size(path: Path) -> int:
    """Bytes of a file, links not followed."""
    return os.lstat(path).st_size
