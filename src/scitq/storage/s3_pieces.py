"""Pieces of files on their way from and to S3, with the sums that prove them."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Protocol

from isal import isal_zlib

from scitq.errors import StorageError
from scitq.storage.base import Cancel, Progress, Readable
from scitq.storage.transfer import CHUNK, buffer
from scitq.storage.wire import Body

_MD5 = re.compile(r"[0-9a-f]{32}")


class Piece(Protocol):
    """Something to send, as often as need be."""

    size: int

    def crc(self, cancel: Cancel) -> int:
        """The CRC-32 of the content."""

    def md5(self, cancel: Cancel) -> str:
        """The MD5 of the content, in base64."""

    def body(self) -> Body:
        """The content, for one request."""

    def restart(self) -> None:
        """Take back the progress told of an earlier try."""


class FilePiece:
    """A range of an open file, read anew for each use. name: of the file, for messages."""

    def __init__(self, descriptor: int, start: int, size: int, progress: Progress, name: str = "the file") -> None:
        self.size, self._name = size, name
        self._descriptor, self._start, self._progress = descriptor, start, progress
        self._told = 0

    def _chunks(self) -> Iterator[memoryview]:
        done = 0
        while done < self.size:
            view = buffer()[: min(CHUNK, self.size - done)]
            count = os.preadv(self._descriptor, [view], self._start + done)
            if not count:
                raise StorageError(f"{self._name} became shorter while it was being read")
            done += count
            yield view[:count]

    def crc(self, cancel: Cancel) -> int:
        """See Piece."""
        value = 0
        for chunk in self._chunks():
            cancel.check()
            value = isal_zlib.crc32(chunk, value)
        return value

    def md5(self, cancel: Cancel) -> str:
        """See Piece."""
        value = hashlib.md5(usedforsecurity=False)
        for chunk in self._chunks():
            cancel.check()
            value.update(chunk)
        return base64.b64encode(value.digest()).decode()

    def body(self) -> Body:
        """See Piece."""
        return b"" if not self.size else self._sent

    def _sent(self) -> Iterator[memoryview]:
        self.restart()
        for chunk in self._chunks():
            yield chunk
            self._told += len(chunk)
            self._progress(len(chunk))

    def restart(self) -> None:
        """See Piece."""
        if self._told:
            self._progress(-self._told)
            self._told = 0


class BytesPiece:
    """Bytes in memory."""

    def __init__(self, data: bytes, progress: Progress) -> None:
        self.size = len(data)
        self._data, self._progress = data, progress
        self._told = 0

    def crc(self, cancel: Cancel) -> int:  # noqa: ARG002 - the interface's
        """See Piece."""
        return isal_zlib.crc32(self._data)

    def md5(self, cancel: Cancel) -> str:  # noqa: ARG002 - the interface's
        """See Piece."""
        return base64.b64encode(hashlib.md5(self._data, usedforsecurity=False).digest()).decode()

    def body(self) -> Body:
        """See Piece."""
        self.restart()
        self._told = self.size
        self._progress(self.size)
        return self._data

    def restart(self) -> None:
        """See Piece."""
        if self._told:
            self._progress(-self._told)
            self._told = 0


def crc_text(value: int) -> str:
    """A CRC-32 as S3 writes it."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


CRC_HEADER = "x-amz-meta-scitq-crc32"
"""Where our uploads keep the CRC-32 of the whole on services that keep none themselves."""


def whole_crc(headers: Mapping[str, str]) -> str:
    """The CRC-32 of the whole object that `headers` tell, or nothing: sums of sums prove no whole."""
    text = headers.get("x-amz-checksum-crc32", "")
    if not text or "-" in text or headers.get("x-amz-checksum-type", "").upper() == "COMPOSITE":
        return headers.get(CRC_HEADER, "")
    return text


def is_plain_md5(etag: str | None) -> bool:
    """Whether `etag` has the form of the content's MD5 sum."""
    return _MD5.fullmatch(etag or "") is not None


def is_encrypted(headers: Mapping[str, str]) -> bool:
    """Whether the ETag is no MD5 because of the way the service encrypts."""
    return headers.get("x-amz-server-side-encryption", "AES256") != "AES256"


def md5_of(descriptor: int, cancel: Cancel) -> str:
    """The MD5 sum of an open file, in hexadecimal."""
    value, offset = hashlib.md5(usedforsecurity=False), 0
    view = buffer()
    while count := os.preadv(descriptor, [view], offset):
        cancel.check()
        value.update(view[:count])
        offset += count
    return value.hexdigest()


def read_fully(stream: Readable, size: int) -> bytes:
    """`size` bytes of `stream`, fewer only at its end."""
    pieces, missing = [], size
    while missing and (piece := stream.read(min(missing, CHUNK))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
