"""`|untar`: archives told by content, extracted into an empty folder, never outside of it (contract UNT-1 to UNT-6)."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, Self, cast

from scitq.agent.actions import content
from scitq.agent.actions.content import Content
from scitq.agent.actions.limits import Meter
from scitq.agent.actions.staging import Staging
from scitq.errors import StorageError

_CHUNK: Final = 1 << 20
_MOST_HEADER: Final = 1 << 20
"""Bytes of one extended header or link target; tarfile would read any size into memory."""
_UNIX: Final = 3
_ENCRYPTED: Final = 1


def extract(archive: Path, target: Path, meter: Meter) -> None:
    """Put the content of `archive` into the new folder `target` and delete the archive; on error both are for the caller to drop."""
    meter.begin(content.file_size(archive))
    target.mkdir()
    staging = Staging(target, meter.uri)
    kind = content.kind_of(content.read_head(archive))
    with content.reading(meter.uri, "archive"):
        if kind is Content.ZIP:
            _extract_zip(archive, staging, meter)
        elif kind is Content.OTHER:
            raise StorageError(f"{meter.uri} is no archive (tar, plain or compressed with gzip, bzip2, xz or zstd, or zip)")
        else:
            _extract_tar(archive, kind, staging, meter)
    staging.finish()
    archive.unlink()


class _Member(tarfile.TarInfo):
    """A header whose extensions are bounded, and which tells when the archive's end mark was seen."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # missing in typeshed
            cast("_Tar", archive).has_ended = True
            raise

    def _proc_member(self, archive: tarfile.TarFile) -> Any:  # noqa: ANN401 - tarfile's own hook, unknown to typeshed
        extensions = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if self.type in extensions and not 0 <= self.size <= _MOST_HEADER:
            raise tarfile.ReadError(f"an extended header claims {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc] # tarfile's own hook, unknown to typeshed


class _Tar(tarfile.TarFile):
    tarinfo = _Member
    has_ended = False


def _extract_tar(archive: Path, kind: Content, staging: Staging, meter: Meter) -> None:
    with content.unpacked(archive, kind) as stream:
        head = stream.read(512)
        if not content.is_tar_header(head):
            hint = "; |gunzip unpacks it" if kind is Content.GZIP else ""
            raise StorageError(f"{meter.uri} is compressed with {kind} but holds no tar archive{hint}")
        try:
            source = cast("IO[bytes]", _Joined(head, stream.read))
            with _Tar.open(fileobj=source, mode="r|", bufsize=_CHUNK, errors="surrogateescape") as tar:
                for member in tar:
                    meter.add_file()
                    _extract_member(tar, member, staging, meter)
                    tar.members = []  # type: ignore[attr-defined] # kept for lookups that a stream can't do, one for each member
                if not tar.has_ended:
                    raise EOFError("its end mark is missing")
        except tarfile.TarError as error:
            raise StorageError(f"{meter.uri}: the archive is corrupt or truncated: {error}") from error
        while chunk := stream.read(_CHUNK):
            meter.pass_bytes(len(chunk))


class _Joined:
    def __init__(self, head: bytes, read: Callable[[int], bytes]) -> None:
        self._head, self._read = head, read

    def read(self, size: int) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head + self._read(size - len(head))
        return self._read(size)


def _extract_member(tar: tarfile.TarFile, member: tarfile.TarInfo, staging: Staging, meter: Meter) -> None:
    if member.isdir():
        staging.folder(member.name, member.mode)
    elif member.issym():
        staging.symlink(member.name, member.linkname)
    elif member.islnk():
        staging.hard_link(member.name, member.linkname)
    elif member.isfile():
        source = tar.extractfile(member)
        if source is None:
            raise StorageError(f"{meter.uri}: the member {member.name!r} can't be read")
        with staging.file(member.name, member.mode) as file:
            _copy(source, file, meter)
    else:
        raise StorageError(f"{meter.uri}: the archive is refused: its member {member.name!r} is a device, a FIFO or of an unknown type")


def _copy(source: IO[bytes], target: Any, meter: Meter) -> bytes:  # noqa: ANN401 - a raw file
    """Copy all; returns the first bytes."""
    head = b""
    while chunk := source.read(_CHUNK):
        head = head or chunk[:4]
        meter.add_bytes(len(chunk))
        write_all(target, chunk)
    return head


def write_all(target: Any, data: bytes) -> None:  # noqa: ANN401 - a raw file
    """Write all of `data` to an unbuffered file."""
    view = memoryview(data)
    while view:
        view = view[target.write(view) :]


def _extract_zip(archive: Path, staging: Staging, meter: Meter) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            if sum(member.compress_size for member in opened.infolist()) > content.file_size(archive):
                raise StorageError(f"{meter.uri}: the archive is refused: its members lie over each other, as only in an attack")
            for member in opened.infolist():
                meter.add_file()
                _extract_zipped(opened, member, staging, meter)
    except NotImplementedError as error:
        raise StorageError(f"{meter.uri}: the zip archive uses what is not supported here: {error}") from error
    except (zipfile.BadZipFile, RuntimeError) as error:
        raise StorageError(f"{meter.uri}: the archive is corrupt or truncated: {error}") from error


def _extract_zipped(opened: zipfile.ZipFile, member: zipfile.ZipInfo, staging: Staging, meter: Meter) -> None:
    if member.flag_bits & _ENCRYPTED:
        raise StorageError(f"{meter.uri}: the archive is encrypted (its member {member.filename!r}); store it without a password")
    mode = member.external_attr >> 16 if member.create_system == _UNIX else 0
    name = member.filename if member.create_system == _UNIX else member.filename.replace("\\", "/")
    kind = stat.S_IFMT(mode)
    if member.is_dir() or name.endswith("/"):
        staging.folder(name, stat.S_IMODE(mode) or 0o755)
    elif kind == stat.S_IFLNK:
        if member.file_size > 4096:
            raise StorageError(f"{meter.uri}: the archive is refused: the link {name!r} is too long")
        staging.symlink(name, opened.read(member).decode(errors="surrogateescape"))
    elif kind in {0, stat.S_IFREG}:
        with opened.open(member) as source, staging.file(name, stat.S_IMODE(mode) or 0o644) as file:
            head = _copy(source, file, meter)
            if not mode and content.is_program(head):  # no mode is known, as in an object store (RES-3)
                os.fchmod(file.fileno(), 0o755)
    else:
        raise StorageError(f"{meter.uri}: the archive is refused: its member {name!r} is a device, a FIFO or of an unknown type")
